"""Forms in which other people keep a network's weights, one file each: a module offers ``FORMS = {name: form}``."""
