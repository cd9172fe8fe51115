-- A proof that is being judged is claimed: by whom and until when. A claim that has run out is as good as none.

ALTER TABLE challenge_proofs ADD COLUMN
    claimed_by txt(96);
ALTER TABLE challenge_proofs ADD COLUMN
    claimed_until ts;
