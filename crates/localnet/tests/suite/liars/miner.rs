//! A miner that lies about challenges: it answers late, twice, in another's name or for another's challenge.

use byteleap_protocol::{challenge::ChallengeItem, merkle::NodeHash};
use serde_json::Value;

use super::{
    client::{Miner, rows_asked, worker},
    work::Work,
    world::{Real, World, missed, passed, refused, score_of},
};

/// The liar's workers, each for one lie.
const EARLY_PROOF: &str = "early-proof";
const SECOND_COMMITMENT: &str = "second-commitment";
const SECOND_PROOF: &str = "second-proof";
const OTHER_WORKER: &str = "commitment-for-another-worker";
const LATE_COMMITMENT: &str = "late-commitment";
const LATE_PROOF: &str = "late-proof";
const LIES: [&str; 6] = [EARLY_PROOF, SECOND_COMMITMENT, SECOND_PROOF, OTHER_WORKER, LATE_COMMITMENT, LATE_PROOF];
/// The victim's one worker.
const HONEST: &str = "honest";

/// A root that belongs to nothing.
const NO_ROOT: NodeHash = NodeHash::Inner([7; 32]);

/// Everything fetched so far, until each of these workers has its challenge.
async fn fetch_all(miner: &Miner, workers: &[&str]) -> Vec<ChallengeItem> {
    let mut fetched = Vec::new();
    while fetched.len() < workers.len() {
        fetched.extend(miner.fetch().await);
        // The scheduler passes every other second; polling faster would meet the rate limit.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    fetched
}

fn of<'a>(challenges: &'a [ChallengeItem], worker: &str) -> &'a ChallengeItem {
    let mut found =
        challenges.iter().filter(|item| item.target_worker_id.as_ref().is_some_and(|id| id.as_str() == worker));
    found.next().unwrap_or_else(|| panic!("{worker} has no challenge"))
}

#[tokio::test]
async fn a_miner_that_lies_about_challenges_is_refused_or_fails_and_is_told_why() {
    let set = ["validation.challenge_timeout=15", "validation.proof_timeout=15"];
    let mut world = World::start(Real::Nothing, &set).await;
    let port = world.port_of(0).await;
    let liar = Miner::connect(world.miner(1), world.validator(), port).await;
    let victim = Miner::connect(world.miner(2), world.validator(), port).await;
    victim.report(victim.hotkey, &[worker(HONEST)]).await;
    liar.report(liar.hotkey, &LIES.map(worker)).await;
    let challenges = fetch_all(&liar, &LIES).await;
    let victims = fetch_all(&victim, &[HONEST]).await;

    // Another's challenge is none of the liar's business, and goes on as if nobody had asked.
    let (item, work) = (&victims[0], Work::of(&victims[0].data));
    let answer = liar.commit(&item.challenge_id, HONEST, NO_ROOT).await;
    assert_eq!(answer.refusal(), "Challenge not found", "commitment for another hotkey");
    let rows = rows_asked(victim.commit(&item.challenge_id, HONEST, work.root()).await);
    let answer = liar.prove(&item.challenge_id, work.open(&rows)).await;
    assert_eq!(answer.refusal(), "Challenge not found", "proof for another hotkey");
    victim.prove(&item.challenge_id, work.open(&rows)).await.served();

    // Out of turn: refused, and the challenge is as it was.
    let item = of(&challenges, EARLY_PROOF);
    let work = Work::of(&item.data);
    let answer = liar.prove(&item.challenge_id, work.open(&[0])).await;
    assert_eq!(answer.refusal(), "Challenge not in committed state", "early proof");
    let rows = rows_asked(liar.commit(&item.challenge_id, EARLY_PROOF, work.root()).await);
    liar.prove(&item.challenge_id, work.open(&rows)).await.served();

    let item = of(&challenges, SECOND_COMMITMENT);
    let work = Work::of(&item.data);
    let rows = rows_asked(liar.commit(&item.challenge_id, SECOND_COMMITMENT, work.root()).await);
    let answer = liar.commit(&item.challenge_id, SECOND_COMMITMENT, NO_ROOT).await;
    assert_eq!(answer.refusal(), "Challenge already processed", "second commitment");
    liar.prove(&item.challenge_id, work.open(&rows)).await.served();

    let item = of(&challenges, SECOND_PROOF);
    let work = Work::of(&item.data);
    let rows = rows_asked(liar.commit(&item.challenge_id, SECOND_PROOF, NO_ROOT).await);
    liar.prove(&item.challenge_id, work.open(&rows)).await.served();
    let answer = liar.prove(&item.challenge_id, work.open(&rows)).await;
    assert_eq!(answer.refusal(), "Challenge already processed", "second proof");

    let item = of(&challenges, OTHER_WORKER);
    let work = Work::of(&item.data);
    let answer = liar.commit(&item.challenge_id, SECOND_PROOF, work.root()).await;
    assert_eq!(answer.refusal(), "Challenge belongs to another worker", "commitment for another worker");

    // Late: the deadline has already judged.
    let item = of(&challenges, LATE_PROOF);
    let work = Work::of(&item.data);
    let rows = rows_asked(liar.commit(&item.challenge_id, LATE_PROOF, work.root()).await);
    let is_over =
        |told: &Value| [LATE_COMMITMENT, OTHER_WORKER, LATE_PROOF].iter().all(|lie| missed(told, lie).is_some());
    world.explained(liar.hotkey, "the deadlines pass", is_over).await;
    let answer = liar.prove(&item.challenge_id, work.open(&rows)).await;
    assert_eq!(answer.refusal(), "Challenge already processed", "late proof");
    let item = of(&challenges, LATE_COMMITMENT);
    let answer = liar.commit(&item.challenge_id, LATE_COMMITMENT, Work::of(&item.data).root()).await;
    assert_eq!(answer.refusal(), "Challenge already processed", "late commitment");

    let told =
        world.explained(liar.hotkey, "everything is judged", |told| refused(told, "already_processed") == 4).await;
    let text = world.explained_to_people(liar.hotkey);
    for (lie, code, note) in [
        (SECOND_PROOF, "wrong_path", "row 0: path does not lead to the committed root"),
        (OTHER_WORKER, "commitment_late", "no commitment before the deadline"),
        (LATE_COMMITMENT, "commitment_late", "no commitment before the deadline"),
        (LATE_PROOF, "proof_late", "no proof before the deadline"),
    ] {
        assert_eq!(missed(&told, lie), Some(("failed", code, note)), "{lie}");
        let score = score_of(&told, lie);
        assert_eq!((&score["attempts"], &score["performance"]), (&1.into(), &0.0.into()), "{lie} earned");
        assert!(text.contains(&format!("failed, {code}: {note}")), "{lie} is not told in\n{text}");
    }
    for harmless in [EARLY_PROOF, SECOND_COMMITMENT] {
        assert_eq!((passed(&told, harmless), missed(&told, harmless)), (1, None), "{harmless} changed nothing");
    }
    for (code, times) in [("unknown_challenge", 2), ("not_committed", 1), ("already_processed", 4), ("other_worker", 1)]
    {
        assert_eq!(refused(&told, code), times, "{code}");
    }

    let told = world.explained(victim.hotkey, "the victim is scored", |told| told["miner"].is_object()).await;
    assert_eq!((passed(&told, HONEST), missed(&told, HONEST)), (1, None), "the honest worker is not disturbed");
    world.network.stop().await;
}
