-- A submission says what its vector was made by: the chain's limits at its block, what was burned and who was left out.

ALTER TABLE weight_submissions ADD COLUMN
    terms json;
