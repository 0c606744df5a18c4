"""The learned detector: an ONNX token classifier served inside the stream."""
