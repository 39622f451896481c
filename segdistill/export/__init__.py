"""Files for the device: safetensors, ONNX, and the proof that they equal the trained net."""
