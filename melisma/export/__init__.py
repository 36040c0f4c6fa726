"""Models for other programs: ONNX graphs, OpenUtau packages, checkpoints in openvpi's layout.

:func:`export_onnx` makes a graph and checks it, :func:`write` writes it, :class:`OnnxModel` reads and runs it.
Everything but onnxruntime comes with the extra ``export``.
"""
