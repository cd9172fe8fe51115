-- The GPUs that a challenge's commitment names, for scoring: interned like those of presence; none for the processor.

ALTER TABLE challenges ADD COLUMN
    gpu_set ref REFERENCES gpu_sets (id);
CREATE INDEX challenges_gpu_set ON challenges (gpu_set) WHERE gpu_set IS NOT NULL;
