"""Forms in which other people keep labelled pictures, one file each: a module offers ``FORMS = {name: form}``."""
