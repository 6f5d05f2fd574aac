"""What a job runs on its nodes: the pipeline on the first, a part of the training on the others."""
