-- Each GPU of a challenge has a verdict of its own, told to people; a claim on a GPU says how the claimant describes it.

ALTER TABLE challenge_units ADD COLUMN
    fail_note txt(512);
ALTER TABLE gpu_claims ADD COLUMN
    raw json;
