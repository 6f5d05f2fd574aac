"""int4 weights chosen by GPTQ, tensor by tensor."""
