//! The last sightings, in memory of a bounded size.

use crate::protocol::Sighting;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many sightings are kept: at most about 20 MB.
const CAPACITY: usize = 100_000;

/// The last sightings, oldest first. Shared by all listeners of one agent.
pub struct Ring {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sightings: VecDeque<Sighting>,
    /// The latest time of a sighting that had to make room.
    lost_until_ms: Option<u64>,
}

impl Ring {
    /// Keeps this many.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            kept: Mutex::default(),
        }
    }

    /// Keeps a sighting, dropping the oldest if there is no room.
    pub fn record(&self, sighting: Sighting) {
        let mut kept = self.lock();
        if kept.sightings.len() >= self.capacity
            && let Some(oldest) = kept.sightings.pop_front()
        {
            kept.lost_until_ms = kept.lost_until_ms.max(Some(oldest.at_ms));
        }
        kept.sightings.push_back(sighting);
    }

    /// All sightings from this moment on, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If some of them had to make room for later ones: a witness that forgot must not say "not seen".
    pub fn since(&self, ms: u64) -> Result<Vec<Sighting>, String> {
        let kept = self.lock();
        if let Some(lost) = kept.lost_until_ms.filter(|&lost| lost >= ms) {
            let capacity = self.capacity;
            return Err(format!(
                "sightings up to {lost} ms were dropped (the last {capacity} are kept): expected to know all since \
                 {ms} ms; ask for those after {lost} ms, or start a new agent"
            ));
        }
        Ok(kept
            .sightings
            .iter()
            .filter(|sighting| sighting.at_ms >= ms)
            .cloned()
            .collect())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Protocol;

    fn sighting(at_ms: u64) -> Sighting {
        let address = "127.0.0.1:1".parse().unwrap();
        Sighting {
            nonce: format!("nonce-{at_ms}"),
            from: address,
            to: address,
            protocol: Protocol::Tcp,
            at_ms,
        }
    }

    fn times(ring: &Ring, since: u64) -> Vec<u64> {
        ring.since(since).unwrap().iter().map(|s| s.at_ms).collect()
    }

    #[test]
    fn sightings_come_oldest_first_and_from_the_moment_asked_for() {
        let ring = Ring::new(10);
        (1..=3).for_each(|ms| ring.record(sighting(ms)));
        assert_eq!(times(&ring, 0), [1, 2, 3]);
        assert_eq!(times(&ring, 2), [2, 3]);
        assert_eq!(times(&ring, 4), [0; 0]);
    }

    #[test]
    fn a_full_ring_keeps_the_last_and_never_says_not_seen_of_what_it_dropped() {
        let ring = Ring::new(2);
        (1..=3).for_each(|ms| ring.record(sighting(ms)));
        assert_eq!(times(&ring, 2), [2, 3]);
        let refusal = ring.since(1).unwrap_err();
        assert!(
            refusal.contains("up to 1 ms were dropped (the last 2 are kept)"),
            "{refusal}"
        );
    }
}
