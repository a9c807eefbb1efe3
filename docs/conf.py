"""Build settings of the documentation: MyST pages, furo, warnings are errors (make docs)."""

project = "CapRPC"
author = "the CapRPC authors"
project_copyright = "the CapRPC authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
suppress_warnings = ["toc.empty_glob"]

html_theme = "furo"
html_title = "CapRPC"
html_show_sourcelink = False
