"""Predictors (torch, ONNX Runtime) and the standard mIoU over a whole split."""
