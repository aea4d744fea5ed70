"""The servers that people would pick instead, beside ours: same models, same requests, same load, one run."""
