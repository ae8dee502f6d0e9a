"""Steps: files in, files out. Each is one function; the pipeline, DVC and the command line call these and nothing else.

Every step writes its outputs beside their final place and renames them when it is done, leaves ``timing.json`` in them,
and returns its scalar metrics.
"""
