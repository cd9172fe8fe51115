-- A challenge that an operator asked for, to look at a worker: it has a verdict and counts for nothing.

ALTER TABLE challenges ADD COLUMN
    test bool DEFAULT 0;
