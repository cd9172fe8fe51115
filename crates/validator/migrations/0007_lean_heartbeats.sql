-- A card's description is written only when its digest differs; a table that nothing ever wrote goes.

ALTER TABLE gpus ADD COLUMN
    hash blob;
DROP TABLE miner_uids;
