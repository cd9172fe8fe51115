//! How things stand on the chain for one hotkey, in words: what `check` prints before a daemon is trusted with a subnet.

use std::fmt;

use tokio::try_join;

use crate::{Block, Chain, ChainError, Epoch, Head, Hotkey, Neuron, Rules};

/// Rao in one TAO, and in one unit of a subnet's token.
const RAO: f64 = 1e9;

/// The chain's head, a subnet's rules and schedule, and what a hotkey is there.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The subnet.
    pub netuid: u16,
    /// Whose standing it is.
    pub hotkey: Hotkey,
    /// The finalised block.
    pub head: Head,
    /// What the subnet demands.
    pub rules: Rules,
    /// Where it is in its schedule.
    pub epoch: Epoch,
    /// Neurons that are registered.
    pub neurons: usize,
    /// The hotkey's own; `None` when it is not registered.
    pub neuron: Option<Neuron>,
}

impl Standing {
    /// Asks the chain. The parts may be one block apart.
    ///
    /// # Errors
    /// [`ChainError`], also for a subnet that does not exist.
    pub async fn read(chain: &dyn Chain, netuid: u16, hotkey: Hotkey) -> Result<Self, ChainError> {
        let metagraph = chain.metagraph(netuid).await?;
        let (head, rules, epoch) = try_join!(chain.head(), chain.rules(netuid), chain.epoch(netuid))?;
        let neuron = metagraph.by_hotkey(&hotkey).cloned();
        Ok(Self { netuid, hotkey, head, rules, epoch, neurons: metagraph.neurons.len(), neuron })
    }

    /// The block of the next epoch; `None` for a subnet without epochs.
    #[must_use]
    pub fn next_epoch(&self) -> Option<Block> {
        self.epoch.next(self.rules.tempo)
    }

    /// Registration, uid, stake and permit, in one line.
    #[must_use]
    pub fn registration(&self) -> String {
        let Some(neuron) = &self.neuron else {
            return format!("hotkey {} is not registered on subnet {}", self.hotkey, self.netuid);
        };
        let permit = if neuron.validator_permit { "validator permit" } else { "no validator permit" };
        let stake = neuron.total_stake as f64 / RAO;
        let alpha = neuron.alpha_stake as f64 / RAO;
        format!("registered as uid {}, stake {stake:.3} (own token {alpha:.3}), {permit}", neuron.uid)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { netuid, head, rules, epoch, neurons, .. } = self;
        let slot_s = head.slot.as_secs_f64();
        writeln!(f, "head      block {}, spec {}, a block every {slot_s} s", head.block, head.spec)?;
        let weights = if rules.commit_reveal { "timelocked" } else { "in the clear" };
        writeln!(f, "rules     subnet {netuid}: {neurons} of {} neurons, tempo {}", rules.max_uids, rules.tempo)?;
        writeln!(
            f,
            "          weights {weights}, at least {}, every {} blocks, version key {} or more, reveal after {} epoch(s)",
            rules.min_allowed_weights, rules.weights_rate_limit, rules.weights_version, rules.reveal_period
        )?;
        let threshold = rules.stake_threshold as f64 / RAO;
        writeln!(
            f,
            "          stake threshold {threshold:.3}, immunity {} blocks, an axon changes every {} blocks",
            rules.immunity_period, rules.serving_rate_limit
        )?;
        write!(f, "epoch     number {}, last at block {}, ", epoch.index, epoch.last_block)?;
        match self.next_epoch() {
            Some(block) => {
                let frozen = epoch.freezes_rules(rules.tempo, rules.admin_freeze_window, head.block);
                let rules = if frozen { "; until then the rules stay as they are" } else { "" };
                writeln!(f, "next due at block {block} (in {}){rules}", block.saturating_sub(head.block))?;
            }
            None => writeln!(f, "none to come: the tempo is 0")?,
        }
        writeln!(f, "standing  {}", self.registration())?;
        let Some(neuron) = &self.neuron else { return Ok(()) };
        let ago = head.block.saturating_sub(neuron.last_update);
        write!(f, "          last weights at block {} ({ago} blocks ago), ", neuron.last_update)?;
        match neuron.axon {
            Some(axon) => writeln!(f, "axon {axon}"),
            None => writeln!(f, "no axon"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FixedChain, Signer, wallet::keypair_from_uri};

    const NETUID: u16 = 128;

    fn hotkey(uri: &str) -> Hotkey {
        keypair_from_uri(uri).unwrap().hotkey()
    }

    #[tokio::test]
    async fn a_registered_hotkey_sees_its_uid_stake_and_permit() {
        let chain = FixedChain::of(NETUID, &[hotkey("//Alice"), hotkey("//Bob")]);
        let standing = Standing::read(&chain, NETUID, hotkey("//Bob")).await.unwrap();
        assert_eq!(standing.registration(), "registered as uid 1, stake 1.000 (own token 1.000), validator permit");
        chain.change_metagraph(|metagraph| metagraph.neurons[1].validator_permit = false);
        let standing = Standing::read(&chain, NETUID, hotkey("//Bob")).await.unwrap();
        assert!(standing.registration().ends_with("no validator permit"));
    }

    #[tokio::test]
    async fn all_that_decides_over_weights_is_shown() {
        let chain = FixedChain::of(NETUID, &[hotkey("//Alice")]);
        chain.change_rules(|rules| (rules.tempo, rules.commit_reveal) = (360, true));
        chain.advance(720);
        let shown = Standing::read(&chain, NETUID, hotkey("//Eve")).await.unwrap().to_string();
        for part in [
            "block 721",
            "tempo 360",
            "timelocked",
            "number 2, last at block 720",
            "block 1080 (in 359)",
            "not registered",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}
