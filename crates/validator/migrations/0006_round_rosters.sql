-- A round is kept with all that it was scored from: the scores of a miner's workers, inputs among them, are one compressed
-- document. A row per worker would be two hundred million a month on a full subnet.

CREATE TABLE round_rosters (
    round ref NOT NULL REFERENCES scoring_rounds (id),
    hotkey txt(64) NOT NULL,
    workers int NOT NULL,
    scores blob NOT NULL,
    PRIMARY KEY (round, hotkey)
);
DROP TABLE round_workers;

ALTER TABLE scoring_rounds ADD COLUMN
    span json DEFAULT NULL;
ALTER TABLE scoring_rounds ADD COLUMN
    ranked int DEFAULT NULL;
