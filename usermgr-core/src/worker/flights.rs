//! Deliveries under way, and how many of them go to each domain.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::lane::End;
use crate::port::store::outbox::DomainRoom;

/// One domain has at most this part of all places, so that slow ones leave the others theirs.
const SHARE: usize = 4;
/// But two, where there are others left: one slow mailbox must not hold up its own domain either.
const LEAST_SHARE: usize = 2;
/// A domain that took its last mail within this time is quick: it may have all places but the share of another one.
const QUICK: Duration = Duration::from_secs(1);
/// How many quick domains are known.
const MOST_QUICK: usize = 1_000;

/// Deliveries under way.
pub(super) struct Flights {
    places: usize,
    tasks: JoinSet<End>,
    /// Where those go that go to a domain, and since when.
    domains: HashMap<Id, (String, Instant)>,
    quick: HashSet<String>,
}

/// A delivery that ended.
pub(super) struct Landed {
    pub(super) end: End,
    /// Whether its domain had all the places it may have, and has one again.
    pub(super) frees_a_domain: bool,
}

impl Flights {
    pub(super) fn new(places: usize) -> Self {
        Self { places, tasks: JoinSet::new(), domains: HashMap::new(), quick: HashSet::new() }
    }

    /// How many more there may be.
    pub(super) fn free(&self) -> usize {
        self.places.saturating_sub(self.tasks.len())
    }

    /// How many more there may be to each domain.
    pub(super) fn room(&self) -> DomainRoom {
        let mut under_way: HashMap<&str, usize> =
            self.quick.iter().map(|domain| (domain.as_str(), 0)).collect();
        for (domain, _) in self.domains.values() {
            *under_way.entry(domain).or_default() += 1;
        }
        let count = |places| u32::try_from(places).unwrap_or(u32::MAX);
        under_way.into_iter().fold(DomainRoom::new(count(self.share())), |room, (domain, under_way)| {
            room.with(domain, count(self.places_of(domain).saturating_sub(under_way)))
        })
    }

    /// How many places a domain may have of which nothing is known.
    fn share(&self) -> usize {
        (self.places / SHARE).max(LEAST_SHARE).min(self.places.saturating_sub(1)).max(1)
    }

    fn places_of(&self, domain: &str) -> usize {
        let share = self.share();
        if self.quick.contains(domain) { share.max(self.places - share.min(self.places)) } else { share }
    }

    pub(super) fn launch(
        &mut self,
        domain: Option<String>,
        delivery: impl Future<Output = End> + Send + 'static,
    ) {
        let id = self.tasks.spawn(delivery).id();
        self.domains.extend(domain.map(|domain| (id, (domain, Instant::now()))));
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
        let Some((domain, since)) = self.domains.remove(&id) else {
            return Landed { end, frees_a_domain: false };
        };
        let others = self.domains.values().filter(|(to, _)| *to == domain).count();
        let frees_a_domain = others + 1 >= self.places_of(&domain);
        if end != End::Sent || since.elapsed() > QUICK {
            self.quick.remove(&domain);
        } else if self.quick.len() < MOST_QUICK {
            self.quick.insert(domain);
        }
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

    /// How many more may be under way, to a domain of which nothing is known, and to `a`.
    fn room(places: usize, to: &[&str]) -> (usize, usize, usize) {
        let flights = flights(places, to);
        let takes = |domain| {
            let mut room = flights.room();
            std::iter::repeat_with(|| room.take(domain)).take_while(|taken| *taken).count()
        };
        (flights.free(), takes("other"), takes("a"))
    }

    #[tokio::test]
    async fn one_domain_has_a_quarter_of_the_places_and_never_all() {
        for (places, share) in [(1, 1), (2, 1), (3, 2), (8, 2), (12, 3), (100, 25)] {
            assert_eq!(room(places, &[]), (places, share, share), "{places}");
        }
        assert_eq!(room(8, &["a"]), (7, 2, 1));
        assert_eq!(room(8, &["a", "a"]), (6, 2, 0));
        assert_eq!(room(8, &["a", "b", "a"]), (5, 2, 0));
        assert_eq!(room(8, &["a", "b", "c", "d", "e", "f", "g", "h"]), (0, 2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_is_quick_until_it_is_slow_or_fails() {
        let quick = |after: u64, end: End| async move {
            let mut flights = flights(8, &[]);
            let ends = async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                end
            };
            flights.quick.insert("a".to_owned());
            flights.launch(Some("a".to_owned()), ends);
            flights.land().await.unwrap();
            flights.places_of("a")
        };
        assert_eq!(quick(900, End::Sent).await, 6);
        assert_eq!(quick(1100, End::Sent).await, 2);
        assert_eq!(quick(1, End::Retried).await, 2);
        assert_eq!(
            [1, 2, 3, 4, 12].map(|places| {
                let mut flights = Flights::new(places);
                flights.quick.insert("a".to_owned());
                flights.places_of("a")
            }),
            [1, 1, 2, 2, 9]
        );
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
