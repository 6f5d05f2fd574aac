"""The types of passes that Olive has, so that a misspelt one is told from one that has no counterpart here."""

# Of olive_config.json in Olive 0.6.2 and 0.13.0.
FOREIGN = """
    AddOliveMetadata AimetQuantization AppendPrePostProcessingOps AutoAWQQuantizer AutoClip CaptureLayerAnnotations
    CaptureSplitInfo ComposeOnnxModels DynamicToFixedShape EPContextBinaryGenerator Gptq GptqModel GptqQuantizer
    GraphSurgeries IncDynamicQuantization IncQuantization IncStaticQuantization InputNCHWtoNHWC InsertBeamSearch
    KQuant LoHa LoKr MatMulNBitsToQDQ MixedPrecisionOverrides MobiusBuilder MoEExpertsDistributor
    NVModelOptGraphSurgery NVModelOptQuantization OnnxBnb4Quantization OnnxDiscrepancyCheck OnnxDynamicQuantization
    OnnxFloatToFloat16 OnnxHqqQuantization OnnxIODataTypeConverter OnnxIOFloat16ToFloat32 OnnxModelOptimizer
    OnnxOpVersionConversion OnnxPeepholeOptimizer OnnxQuantization OnnxQuantizationPreprocess OnnxScriptFusion
    OnnxStaticQuantization OpenVINOConversion OpenVINOEncapsulation OpenVINOIoUpdate OpenVINOOptimumConversion
    OpenVINOQuantization OpenVINOQuantizationWithAccuracy OpenVINOWeightCompression OrtMixedPrecision OrtPerfTuning
    OrtSessionParamsTuning PowerOfTwoMethod PyTorchTensorParallel QairtEncapsulation QairtGenAIBuilder QairtMHA2SHA
    QairtPipelinePass QairtPreparation QNNContextBinaryGenerator QNNConversion QNNModelLibGenerator QNNPreprocess
    QuantizationAwareTraining quantize_static QuarkQuantization QuaRot Rtn SDLoRA SelectiveMixedPrecision SliceGPT
    SNPEConversion SNPEQuantization SNPEtoONNXConversion SparseGPT SpinQuant SplitModel StaticLLM TorchTRTConversion
    VitisAIAddMetaData VitisAIQuantization VitisGenerateModelLLM VitisGenerateModelSD VitisQDQQuantizer
    VitisQOpQuantizer
"""

RUNTIMES = ("openvino", "qairt", "qnn", "quark", "snpe", "tensorrt", "trt", "vitis")
QUANTIZERS = ("quant", "gptq", "awq", "gptqmodel", "hqq", "rtn", "rot", "spin", "sparse", "slice", "clip")


def why(kind: str) -> str | None:
    """Why a type of pass has no counterpart here, None if Olive has no such type.

    Args:
        kind: the type in small letters.
    """
    if kind not in FOREIGN.lower().split():
        return None
    if kind.startswith(RUNTIMES):
        return "the model is for onnxruntime-genai and its execution providers alone"
    if any(name in kind for name in QUANTIZERS):
        return "weights are rounded by the stage build, see build.algo_config"
    return "no stage does it"
