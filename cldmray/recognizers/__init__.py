"""Public face recognizers: SFace, any ONNX model, dlib; aligned faces in, embeddings out."""
