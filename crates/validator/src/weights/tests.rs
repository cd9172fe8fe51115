//! Submissions over a real store, with the chain and the clock held by hand.

use std::net::SocketAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use byteleap_chain::{Epoch, FixedChain, Head, Hotkey, Keypair, WeightMatrix};
use byteleap_daemon::clock::ManualClock;
use byteleap_protocol::id::WorkerId;
use byteleap_scoring::{Profile, ProfileName, Rules as ScoringRules};

use super::report::{diff, preview, replayed, show, submit};
use super::testing::{chain_rules, neuron, settings};
use super::*;
use crate::score::Scorer;
use crate::score::explain::explain;
use crate::store::heartbeat::Heartbeat;
use crate::store::lease::LeaseScore;
use crate::store::submission::Burned;
use crate::store::testing::{beat, on_both_engines, store};

const NOW_MS: i64 = 1_761_955_200_000;
const NETUID: u16 = 128;
const MINER: Hotkey = Hotkey([1; 32]);

/// A fixed chain that may lose sight of what it was sent.
struct Lossy {
    chain: FixedChain,
    /// What `set_weights` answers instead of the truth, and whether the weights arrive all the same.
    lie: Mutex<Option<(Result<Receipt, ChainError>, bool)>>,
    /// Held by a test, it makes `set_weights` wait.
    gate: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Chain for Lossy {
    async fn head(&self) -> Result<Head, ChainError> {
        self.chain.head().await
    }
    async fn next_block(&self, after: Block) -> Result<Head, ChainError> {
        self.chain.next_block(after).await
    }
    async fn metagraph(&self, netuid: u16) -> Result<Metagraph, ChainError> {
        self.chain.metagraph(netuid).await
    }
    async fn weight_matrix(&self, netuid: u16) -> Result<WeightMatrix, ChainError> {
        self.chain.weight_matrix(netuid).await
    }
    async fn rules(&self, netuid: u16) -> Result<Rules, ChainError> {
        self.chain.rules(netuid).await
    }
    async fn epoch(&self, netuid: u16) -> Result<Epoch, ChainError> {
        self.chain.epoch(netuid).await
    }
    async fn uid(&self, netuid: u16, hotkey: &Hotkey) -> Result<Option<u16>, ChainError> {
        self.chain.uid(netuid, hotkey).await
    }
    async fn serve_axon(
        &self,
        netuid: u16,
        address: SocketAddr,
        version: u32,
        by: &dyn Signer,
    ) -> Result<Option<Receipt>, ChainError> {
        self.chain.serve_axon(netuid, address, version, by).await
    }
    async fn set_weights(&self, netuid: u16, weights: &Weights, by: &dyn Signer) -> Result<Receipt, ChainError> {
        let _open = self.gate.lock().await;
        let lie = self.lie.lock().unwrap().take();
        match lie {
            Some((answer, false)) => answer,
            Some((answer, true)) => self.chain.set_weights(netuid, weights, by).await.and(answer),
            None => self.chain.set_weights(netuid, weights, by).await,
        }
    }
}

/// A validator (uid 0) and a leased miner (uid 1) at block 1000, and a scored round.
struct Scene {
    submitter: Submitter,
    chain: Arc<Lossy>,
    clock: Arc<ManualClock>,
}

impl Scene {
    async fn new() -> Self {
        let store = store().await;
        let own = Keypair::from_seed(&[7; 32]);
        let validator = Neuron { validator_permit: true, last_update: 900, ..neuron(0, own.hotkey()) };
        let neurons = vec![validator, neuron(1, MINER)];
        let metagraph = Metagraph { netuid: NETUID, block: 1_000, owner_hotkey: Hotkey([9; 32]), neurons };
        let chain = Arc::new(Lossy {
            chain: FixedChain::new(metagraph, chain_rules()),
            lie: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        });
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let preparer = Preparer {
            store,
            chain: chain.clone(),
            own: own.hotkey(),
            clock: clock.clone(),
            netuid: NETUID,
            settings: settings(),
        };
        let submitter = preparer.signed_by(Arc::new(own));
        let scene = Self { submitter, chain, clock };
        scene.score(1.0).await;
        scene
    }

    /// Makes a round in which the miner's only worker has this lease.
    async fn score(&self, lease: f64) {
        let Preparer { store, clock, chain, .. } = &self.submitter.preparer;
        let workers = vec![beat("w")];
        let now_ms = clock.unix_ms();
        let heartbeat = Heartbeat { hotkey: MINER, version: None, public_ip: None, workers, at_ms: now_ms };
        store.record_heartbeat(&heartbeat).await.unwrap();
        let worker: WorkerId = "w".parse().unwrap();
        store.set_lease(MINER, &worker, LeaseScore::new(lease).unwrap(), "test", now_ms).await.unwrap();
        let (store, chain, clock) = (store.clone(), chain.clone(), clock.clone());
        Scorer { store, chain, netuid: NETUID, clock, rules: ScoringRules::default().into() }
            .score_once()
            .await
            .unwrap();
    }

    fn lie(&self, error: ChainError, arrives: bool) {
        *self.chain.lie.lock().unwrap() = Some((Err(error), arrives));
    }

    fn sent(&self) -> usize {
        self.chain.chain.submitted().len()
    }

    async fn statuses(&self) -> Vec<SubmissionStatus> {
        let rows = self.submitter.preparer.store.last_submissions(10).await.unwrap();
        rows.into_iter().map(|row| row.status).collect()
    }
}

async fn weights_are_sent_when_the_tempo_is_over_and_then_not_again() {
    let scene = Scene::new().await;
    scene.chain.chain.change_metagraph(|metagraph| metagraph.neurons[0].last_update = 950);
    assert_eq!(scene.submitter.step().await.unwrap(), 1_050);
    assert_eq!(scene.sent(), 0);

    scene.chain.chain.advance(50);
    scene.submitter.step().await.unwrap();
    let (_, weights) = scene.chain.chain.submitted().remove(0);
    assert_eq!(weights.pairs().collect::<Vec<_>>(), [(1, 65_535)]);
    assert_eq!(weights.version_key(), 9_010_000);
    let row = scene.submitter.preparer.store.last_submissions(1).await.unwrap().remove(0);
    assert_eq!((row.status, row.block, row.confirmed_block), (SubmissionStatus::Included, 1_050, Some(1_050)));

    assert_eq!(scene.submitter.step().await.unwrap(), 1_150);
    assert_eq!(scene.sent(), 1);
}

async fn a_refusal_is_kept_with_its_reason_and_tried_again_later() {
    let scene = Scene::new().await;
    let refused = ChainError::Refused { pallet: "SubtensorModule".into(), name: "SettingWeightsTooFast".into() };
    scene.lie(refused, false);
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::Chain(_))));
    let row = scene.submitter.preparer.store.last_submissions(1).await.unwrap().remove(0);
    assert_eq!(row.status, SubmissionStatus::Rejected);
    assert_eq!(row.reason.as_deref(), Some("the chain refuses: SubtensorModule.SettingWeightsTooFast"));

    assert_eq!(scene.submitter.step().await.unwrap(), 1_001);
    scene.chain.chain.advance(1);
    scene.submitter.step().await.unwrap();
    assert_eq!(scene.statuses().await, [SubmissionStatus::Included, SubmissionStatus::Rejected]);
}

async fn what_arrived_unseen_is_recognised_and_not_sent_twice() {
    let scene = Scene::new().await;
    scene.lie(ChainError::Unknown { nonce: 3 }, true);
    // The extrinsic lands a block after the one its vector was read at.
    assert!(scene.submitter.step().await.is_err());
    assert_eq!(scene.statuses().await, [SubmissionStatus::Unconfirmed]);
    scene.chain.chain.change_metagraph(|metagraph| metagraph.neurons[0].last_update = 1_001);
    scene.chain.chain.advance(2);
    assert_eq!(scene.submitter.step().await.unwrap(), 1_101);
    assert_eq!((scene.sent(), scene.statuses().await), (1, vec![SubmissionStatus::Included]));
}

async fn what_never_arrived_is_sent_again_once_it_no_longer_can() {
    let scene = Scene::new().await;
    scene.lie(ChainError::Unknown { nonce: 3 }, false);
    assert!(scene.submitter.step().await.is_err());
    scene.chain.chain.advance(pace::FATE_BLOCKS - 1);
    assert_eq!(scene.submitter.step().await.unwrap(), 1_000 + pace::FATE_BLOCKS);
    scene.chain.chain.advance(1);
    scene.submitter.step().await.unwrap();
    assert_eq!(scene.statuses().await, [SubmissionStatus::Included, SubmissionStatus::Unconfirmed]);
}

async fn a_success_that_the_chain_does_not_show_is_unconfirmed() {
    let scene = Scene::new().await;
    let receipt = Receipt { block: 1_000, hash: [7; 32], reveal_round: None };
    *scene.chain.lie.lock().unwrap() = Some((Ok(receipt), false));
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::NotShown(1_000))));
    assert_eq!(scene.statuses().await, [SubmissionStatus::Unconfirmed]);
    scene.chain.chain.advance(pace::FATE_BLOCKS);
    scene.submitter.step().await.unwrap();
    assert_eq!(scene.statuses().await, [SubmissionStatus::Included, SubmissionStatus::Unconfirmed]);
}

async fn a_receipt_newer_than_the_state_that_we_can_read_stands() {
    let scene = Scene::new().await;
    let receipt = Receipt { block: 1_002, hash: [7; 32], reveal_round: Some(77) };
    *scene.chain.lie.lock().unwrap() = Some((Ok(receipt), false));
    scene.submitter.step().await.unwrap();
    let row = scene.submitter.preparer.store.last_submissions(1).await.unwrap().remove(0);
    assert_eq!(
        (row.status, row.confirmed_block, row.reveal_round),
        (SubmissionStatus::Included, Some(1_002), Some(77))
    );
}

async fn a_submission_keeps_what_its_vector_was_made_by() {
    let mut scene = Scene::new().await;
    scene.chain.chain.change_metagraph(|metagraph| metagraph.neurons.push(neuron(2, Hotkey([9; 32]))));
    scene.chain.chain.change_rules(|rules| (rules.min_allowed_weights, rules.weights_version) = (3, 4));
    scene.submitter.preparer.settings.burn.share = 0.25;
    scene.submitter.step().await.unwrap();
    let row = scene.submitter.preparer.store.last_submissions(1).await.unwrap().remove(0);
    let terms = row.terms.unwrap();
    assert_eq!((row.uids, row.values), (vec![1, 2, 0], vec![65_535, 21_845, 1]));
    assert_eq!(terms.burned, Some(Burned { uid: 2, share: 0.25 }));
    assert_eq!((terms.min_allowed, terms.max_share, terms.version_demanded), (3, u16::MAX, 4));
    assert_eq!((terms.rate_limit_blocks, terms.filled, terms.enforced), (20, 1, true));
    let shown = show(&scene.submitter.preparer.store, false).await.unwrap();
    assert!(shown.contains("burned      25.0000% of the weight, by uid 2\n"), "{shown}");
    assert!(shown.contains("limits      at least 3 weights, largest share 100.0000%, 20 blocks between"), "{shown}");
}

async fn an_explanation_ends_with_the_value_on_chain() {
    let mut scene = Scene::new().await;
    scene.chain.chain.change_metagraph(|metagraph| metagraph.neurons.push(neuron(2, Hotkey([9; 32]))));
    scene.submitter.preparer.settings.burn.share = 0.75;
    let told = async || explain(&scene.submitter.preparer.store, MINER).await.unwrap().unwrap();
    let before = told().await;
    assert_eq!((before.value.alone, before.value.submitted.is_none()), (65_535, true));
    assert!(
        before.to_string().contains("nothing was submitted yet; alone this weight makes 65535 of 65535"),
        "{before}"
    );

    scene.submitter.step().await.unwrap();
    let paid = told().await;
    let submitted = paid.value.submitted.clone().unwrap();
    assert_eq!((submitted.uid, submitted.value, submitted.confirmed_block), (Some(1), 21_845, Some(1_000)));
    let text = paid.to_string();
    let line = "on chain      21845 of 65535, 25.0000% of the vector: submission 1 of round 1, included in block 1000\n  \
                burned      75.0000% of the weight, by uid 2\n  limits      at least 1 weight,";
    assert!(text.contains(line), "{text}");

    scene.score(1.0).await;
    let unpaid = told().await;
    assert_eq!(unpaid.value.submitted.as_ref().map(|submitted| submitted.round.0), Some(1));
    assert!(unpaid.to_string().contains("this round was not submitted; alone its weight makes 65535"), "{unpaid}");
    let json = serde_json::to_value(&unpaid).unwrap();
    assert_eq!(json["value"]["submitted"]["terms"]["burned"]["share"], 0.75);
}

#[test]
fn those_that_moved_most_are_named_first() {
    let old: Vec<(u16, u16)> = (0..8).map(|uid| (uid, 100)).collect();
    assert_eq!(movers(&old, &old), "");
    let new = [(0, 450), (1, 100), (2, 50), (3, 50), (4, 50), (5, 50), (6, 50)];
    assert_eq!(movers(&new, &old), "uid 0 +43.7500%, uid 7 -12.5000%, uid 2 -6.2500%, uid 3 -6.2500%, uid 4 -6.2500%");
}

async fn a_round_that_is_too_old_or_pays_nobody_sends_nothing() {
    let scene = Scene::new().await;
    scene.clock.advance(Duration::from_secs(30 * 60 + 1));
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::RoundTooOld(1_800))));
    scene.score(0.0).await;
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::Vector(VectorError::Nobody))));
    assert!(scene.statuses().await.is_empty());
}

async fn what_the_chain_would_refuse_is_said_before_anything_is_sent() {
    let scene = Scene::new().await;
    scene.chain.chain.change_rules(|rules| rules.weights_version = 9_010_001);
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::VersionKey { demanded: 9_010_001, .. })));
    scene.chain.chain.change_rules(|rules| rules.weights_version = 0);
    scene.chain.chain.change_metagraph(|metagraph| metagraph.neurons[0].validator_permit = false);
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::NoPermit)));
    scene.chain.chain.change_metagraph(|metagraph| metagraph.neurons[0].hotkey = Hotkey([3; 32]));
    assert!(matches!(scene.submitter.step().await, Err(WeightsError::NotRegistered(_))));
    assert!(scene.statuses().await.is_empty());
}

async fn a_dry_run_does_everything_but_send() {
    let mut scene = Scene::new().await;
    scene.submitter.preparer.settings.dry_run = true;
    scene.submitter.step().await.unwrap();
    assert_eq!((scene.sent(), scene.statuses().await), (0, vec![SubmissionStatus::Skipped]));
    assert_eq!(scene.submitter.step().await.unwrap(), 1_100);

    scene.submitter.preparer.settings.dry_run = false;
    scene.submitter.step().await.unwrap();
    assert_eq!(scene.sent(), 1);
}

async fn the_task_sets_weights_as_blocks_pass_and_ends_when_stopped() {
    let scene = Scene::new().await;
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(scene.submitter.clone(), stop.clone()));
    while scene.sent() < 2 {
        scene.chain.chain.advance(1);
        tokio::task::yield_now().await;
    }
    stop.cancel();
    task.await.unwrap();
}

async fn a_stop_waits_for_the_submission_that_is_on_its_way() {
    let scene = Scene::new().await;
    let (stop, gate) = (CancellationToken::new(), scene.chain.gate.lock().await);
    let task = tokio::spawn(run(scene.submitter.clone(), stop.clone()));
    while scene.statuses().await != [SubmissionStatus::Pending] {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    tokio::task::yield_now().await;
    drop(gate);
    task.await.unwrap();
    assert_eq!((scene.sent(), scene.statuses().await), (1, vec![SubmissionStatus::Included]));
}

#[test]
fn what_time_does_not_mend_is_not_tried_again_within_a_tempo() {
    let refused = |name: &str| ChainError::Refused { pallet: "SubtensorModule".to_owned(), name: name.to_owned() };
    let again = |error: ChainError| again_at(&error.into(), 1_000, 105);
    for name in
        ["NeuronNoValidatorPermit", "IncorrectWeightVersionKey", "WeightVecNotEqualSize", "NotEnoughStakeToSetWeights"]
    {
        assert_eq!(again(refused(name)), 1_105, "{name}");
    }
    assert_eq!(again(ChainError::NotRegistered(NETUID)), 1_105);
    for passing in [refused("SettingWeightsTooFast"), ChainError::TooSoon(3), ChainError::Unreachable(String::new())] {
        assert_eq!(again(passing), 1_001, "the pace of refusals says how much later");
    }
    assert_eq!(again_at(&WeightsError::NoPermit, 1_000, 105), 1_001, "nothing was sent");
}

async fn an_operator_sees_what_would_be_sent_sends_it_and_sees_what_became_of_it() {
    let scene = Scene::new().await;
    let preparer = &scene.submitter.preparer;
    assert_eq!(show(&preparer.store, false).await.unwrap(), "no weights were submitted yet\n");
    let previewed = preview(preparer, false).await.unwrap();
    assert_eq!(
        previewed,
        "round 1 (scored), block 1000, version key 9010000\n\
         limits      at least 1 weight, largest share 100.0000%, 20 blocks between two settings\n  \
         uid  value     share\n    1  65535  100.0000%\n"
    );
    assert_eq!(scene.sent(), 0);
    let submitted = submit(&scene.submitter, false).await.unwrap();
    assert!(submitted.starts_with(&previewed) && submitted.contains("included in block 1000"), "{submitted}");
    let shown = show(&preparer.store, false).await.unwrap();
    assert!(shown.starts_with("1: included, round 1, read at block 1000, 1 weight, in block 1000, 0x"), "{shown}");
}

async fn a_program_reads_the_same_as_json() {
    let scene = Scene::new().await;
    let preparer = &scene.submitter.preparer;
    let json = |text: Result<String, WeightsError>| serde_json::from_str::<serde_json::Value>(&text.unwrap()).unwrap();
    assert_eq!(json(show(&preparer.store, true).await), serde_json::json!([]));
    let previewed = json(preview(preparer, true).await);
    assert_eq!((&previewed["uids"], &previewed["values"]), (&serde_json::json!([1]), &serde_json::json!([65_535])));
    assert!(previewed["extrinsic"].is_null() && scene.sent() == 0, "{previewed}");
    let submitted = json(submit(&scene.submitter, true).await);
    assert_eq!((&submitted["values"], &submitted["included_block"]), (&previewed["values"], &1_000.into()));
    let shown = json(show(&preparer.store, true).await);
    assert_eq!((&shown[0]["status"], &shown[0]["extrinsic"]), (&"included".into(), &submitted["extrinsic"]));
    let compared = json(diff(preparer, true).await);
    assert_eq!((&compared["own_uid"], &compared["moved_from_chain"]), (&0.into(), &0.0.into()));
}

async fn our_vector_is_held_against_the_chain_the_consensus_and_others() {
    let scene = Scene::new().await;
    let other = Keypair::from_seed(&[8; 32]);
    scene.chain.chain.change_metagraph(|metagraph| {
        metagraph.neurons[0].total_stake = 10;
        let validator = Neuron { validator_permit: true, total_stake: 30, ..neuron(2, other.hotkey()) };
        metagraph.neurons.push(validator);
    });
    let before = scene.submitter.preparer.diff().await.unwrap();
    assert_eq!((before.moved_from_chain, before.moved_from_consensus, before.validators.len()), (None, None, 0));
    let theirs = Weights::emit(&[(0, 1.0), (1, 3.0)], 0).unwrap().unwrap();
    scene.chain.chain.set_weights(NETUID, &theirs, &other).await.unwrap();
    scene.submitter.submit().await.unwrap();

    let after = scene.submitter.preparer.diff().await.unwrap();

    assert_eq!(after.moved_from_chain, Some(0.0));
    let differ = |moved: f64| (moved * 100.0).round();
    assert_eq!((after.validators[0].uid, differ(after.validators[0].moved)), (2, 25.0));
    assert_eq!(after.moved_from_consensus.map(differ), Some(25.0));
    assert_eq!(after.paid.iter().map(|paid| (paid.uid, differ(paid.ours))).collect::<Vec<_>>(), [(0, 0.0), (1, 100.0)]);
    let text = after.to_string();
    assert!(text.contains("chain       0.0000% differ"), "{text}");
    assert!(text.contains("    1  100.0000%  100.0000%   74.9996%"), "{text}");
}

async fn a_round_is_scored_again_under_another_profile() {
    let scene = Scene::new().await;
    let store = &scene.submitter.preparer.store;
    let replay = async |profile: Option<ProfileName>| {
        let profile = profile.map_or_else(Profile::default, Profile::named);
        let text = replayed(store, Some(1), &profile, true).await?;
        Ok::<serde_json::Value, WeightsError>(serde_json::from_str(&text).unwrap())
    };
    let same = replay(None).await.unwrap();
    assert_eq!((&same["same"], &same["miners"][0]["stored_score"]), (&true.into(), &0.9.into()));
    let other = replay(Some(ProfileName::Docs1000)).await.unwrap();
    assert_eq!((&other["same"], &other["miners"][0]["replayed_score"]), (&false.into(), &1.0.into()));
    assert_eq!(other["moved"], 0.0, "it is the only one");
    let refused = replayed(store, Some(9), &Profile::default(), false).await.unwrap_err();
    assert!(refused.to_string().contains("no such scoring round"));
}

on_both_engines!(
    a_stop_waits_for_the_submission_that_is_on_its_way,
    a_success_that_the_chain_does_not_show_is_unconfirmed,
    a_receipt_newer_than_the_state_that_we_can_read_stands,
    a_submission_keeps_what_its_vector_was_made_by,
    an_explanation_ends_with_the_value_on_chain,
    our_vector_is_held_against_the_chain_the_consensus_and_others,
    a_round_is_scored_again_under_another_profile,
    weights_are_sent_when_the_tempo_is_over_and_then_not_again,
    a_refusal_is_kept_with_its_reason_and_tried_again_later,
    what_arrived_unseen_is_recognised_and_not_sent_twice,
    what_never_arrived_is_sent_again_once_it_no_longer_can,
    a_round_that_is_too_old_or_pays_nobody_sends_nothing,
    what_the_chain_would_refuse_is_said_before_anything_is_sent,
    a_dry_run_does_everything_but_send,
    the_task_sets_weights_as_blocks_pass_and_ends_when_stopped,
    an_operator_sees_what_would_be_sent_sends_it_and_sees_what_became_of_it,
    a_program_reads_the_same_as_json,
);
