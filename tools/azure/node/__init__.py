"""What a job runs on its nodes: the pipeline on the first, a share of the training on the others."""
