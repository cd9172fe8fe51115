-- What miners whose signature held were refused, counted by reason: a line of their explanation, never a penalty.

CREATE TABLE refusals (
    hotkey txt(64) NOT NULL,
    code txt(64) NOT NULL,
    times int NOT NULL,
    note txt(256) NOT NULL,
    last_at ts NOT NULL,
    PRIMARY KEY (hotkey, code)
);
