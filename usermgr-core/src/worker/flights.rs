//! Deliveries under way, and how many of them go to each domain.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinError, JoinSet};

use super::lane::End;

/// One domain has at most this part of all places, so that slow ones leave the others theirs.
const SHARE: usize = 4;
/// But two, where there are others left: one slow mailbox must not hold up its own domain either.
const LEAST_SHARE: usize = 2;

/// Deliveries under way.
pub(super) struct Flights {
    places: usize,
    tasks: JoinSet<End>,
    /// Where those go that go to a domain.
    domains: HashMap<Id, String>,
}

/// What may be claimed now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) limit: usize,
    pub(super) passing_over: Vec<String>,
}

/// A delivery that ended.
pub(super) struct Landed {
    pub(super) end: End,
    /// Whether its domain had all the places it may have, and has one again.
    pub(super) frees_a_domain: bool,
}

impl Flights {
    pub(super) fn new(places: usize) -> Self {
        Self { places, tasks: JoinSet::new(), domains: HashMap::new() }
    }

    /// How many places one domain may have.
    fn share(&self) -> usize {
        (self.places / SHARE).max(LEAST_SHARE).min(self.places.saturating_sub(1)).max(1)
    }

    fn under_way_to(&self, domain: &str) -> usize {
        self.domains.values().filter(|to| *to == domain).count()
    }

    /// How many more may be claimed at once: no more than there are places, and than any domain may have besides what
    /// is under way to it already.
    pub(super) fn room(&self) -> Room {
        let mut under_way: HashMap<&str, usize> = HashMap::new();
        for domain in self.domains.values() {
            *under_way.entry(domain).or_default() += 1;
        }
        let share = self.share();
        let most = under_way.values().filter(|count| **count < share).max().copied().unwrap_or(0);
        let full = under_way.into_iter().filter(|(_, count)| *count >= share);
        Room {
            limit: self.places.saturating_sub(self.tasks.len()).min(share - most),
            passing_over: full.map(|(domain, _)| domain.to_owned()).collect(),
        }
    }

    pub(super) fn launch(
        &mut self,
        domain: Option<String>,
        delivery: impl Future<Output = End> + Send + 'static,
    ) {
        let id = self.tasks.spawn(delivery).id();
        self.domains.extend(domain.map(|domain| (id, domain)));
    }

    /// A delivery that has ended, if there is one.
    pub(super) fn try_land(&mut self) -> Option<Landed> {
        self.tasks.try_join_next_with_id().map(|joined| self.landed(joined))
    }

    /// The next delivery that ends; `None` when none is under way.
    pub(super) async fn land(&mut self) -> Option<Landed> {
        let joined = self.tasks.join_next_with_id().await?;
        Some(self.landed(joined))
    }

    fn landed(&mut self, joined: Result<(Id, End), JoinError>) -> Landed {
        let (id, end) = joined.unwrap_or_else(|error| {
            tracing::error!(%error, "a delivery ended out of order; it is made again when its lease has passed");
            (error.id(), End::Lost)
        });
        let frees_a_domain = self.domains.get(&id).is_some_and(|to| self.under_way_to(to) >= self.share());
        self.domains.remove(&id);
        Landed { end, frees_a_domain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flights(places: usize, to: &[&str]) -> Flights {
        let mut flights = Flights::new(places);
        for domain in to {
            flights.launch(Some((*domain).to_owned()), std::future::pending());
        }
        flights
    }

    fn room(places: usize, to: &[&str]) -> (usize, Vec<String>) {
        let Room { limit, mut passing_over } = flights(places, to).room();
        passing_over.sort_unstable();
        (limit, passing_over)
    }

    #[tokio::test]
    async fn one_domain_has_a_quarter_of_the_places_and_never_all() {
        for (places, share) in [(1, 1), (2, 1), (3, 2), (8, 2), (12, 3), (100, 25)] {
            assert_eq!(room(places, &[]), (share, vec![]), "{places}");
        }
        assert_eq!(room(8, &["a"]), (1, vec![]));
        assert_eq!(room(8, &["a", "a"]), (2, vec!["a".to_owned()]));
        assert_eq!(room(8, &["a", "b", "a"]), (1, vec!["a".to_owned()]));
        assert_eq!(room(8, &["a", "b", "a", "b"]), (2, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(room(8, &["a", "b", "c", "d", "e", "f", "g"]), (1, vec![]));
        assert_eq!(room(8, &["a", "b", "c", "d", "e", "f", "g", "h"]).0, 0);
    }

    #[tokio::test]
    async fn a_landing_frees_a_domain_that_was_full() {
        let mut flights = Flights::new(8);
        for domain in ["a", "a", "b"] {
            flights.launch(Some(domain.to_owned()), std::future::ready(End::Sent));
        }
        flights.launch(None, async { panic!("planted") });
        let (mut freed, mut lost) = (0, 0);
        while let Some(Landed { end, frees_a_domain }) = flights.land().await {
            freed += usize::from(frees_a_domain);
            lost += usize::from(end == End::Lost);
        }
        assert_eq!((freed, lost), (1, 1));
        assert!(flights.domains.is_empty());
    }
}
