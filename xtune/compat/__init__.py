"""Private names of torch, transformers, mmengine, DeepSpeed and datasets, one module for each library.

No other package of xtune names them. Each function says why the public API is not enough, and `tests/compat` has a test
of it that fails where a release moves or changes the name.
"""
