-- What refers to a row that is to go is found by an index.

CREATE INDEX presence_days_gpu_set ON presence_days (gpu_set);
CREATE INDEX weight_submissions_round ON weight_submissions (round);
CREATE INDEX refusals_last ON refusals (last_at);
