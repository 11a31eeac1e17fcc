//! The line in front of the hash pool: bounded, and fair to those who wait in it.

use std::collections::{HashMap, VecDeque};

/// Who a password is hashed for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HashOrigin {
    /// What it is hashed for.
    pub purpose: HashPurpose,
    /// The network of the client, as limits count it.
    pub network: String,
}

/// What a password is hashed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "the queue serves each in turn")]
pub enum HashPurpose {
    /// Somebody signs in, or proves anew who they are.
    SignIn,
    /// A password is set: registrations, resets, changes, invitations.
    NewPassword,
}

/// A bounded queue in which no network and no purpose keeps the others out.
///
/// Both purposes are served in turn, and of one purpose the networks are; within a network first come, first served.
/// One who comes alone may fill the queue. When it is full, a newcomer who has fewer places displaces the newest of
/// those who have most: first of the other purpose, then of the other networks.
pub(super) struct HashQueue<T> {
    lanes: [Lane<T>; 2],
    /// The lane whose turn it is.
    turn: usize,
    limit: usize,
}

/// What waits for one purpose.
struct Lane<T> {
    lines: HashMap<String, VecDeque<T>>,
    /// The networks that wait, the one whose turn it is first.
    turns: VecDeque<String>,
    len: usize,
}

/// What became of one that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed<T> {
    /// It has a place.
    Queued,
    /// It has the place of this one.
    Displaced(T),
    /// There was no place.
    Refused(T),
}

impl<T> HashQueue<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { lanes: [Lane::default(), Lane::default()], turn: 0, limit }
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.len).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// Whether one who comes now has a place, if need be another's.
    pub(super) fn has_place(&self, origin: &HashOrigin) -> bool {
        let [sign_ins, new_passwords] = &self.lanes;
        let (own, other) = match origin.purpose {
            HashPurpose::SignIn => (sign_ins, new_passwords),
            HashPurpose::NewPassword => (new_passwords, sign_ins),
        };
        !self.is_full() || other.len > own.len + 1 || own.longest() > own.waiting(&origin.network) + 1
    }

    /// Lets one wait.
    pub(super) fn push(&mut self, origin: HashOrigin, item: T) -> Pushed<T> {
        if !self.has_place(&origin) {
            return Pushed::Refused(item);
        }
        let is_full = self.is_full();
        let [sign_ins, new_passwords] = &mut self.lanes;
        let (own, other) = match origin.purpose {
            HashPurpose::SignIn => (sign_ins, new_passwords),
            HashPurpose::NewPassword => (new_passwords, sign_ins),
        };
        let from = if other.len > own.len + 1 { other } else { &mut *own };
        let displaced = if is_full { from.take_from_longest() } else { None };
        own.push(origin.network, item);
        displaced.map_or(Pushed::Queued, Pushed::Displaced)
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<T> {
        let [one, two] = &mut self.lanes;
        let (first, second) = if self.turn == 0 { (one, two) } else { (two, one) };
        if let Some(item) = first.pop() {
            self.turn = 1 - self.turn;
            return Some(item);
        }
        second.pop()
    }

    /// Lets go of those that do not fit.
    pub(super) fn retain(&mut self, fits: impl Fn(&T) -> bool) {
        for lane in &mut self.lanes {
            lane.retain(&fits);
        }
    }
}

impl<T> Lane<T> {
    fn push(&mut self, network: String, item: T) {
        self.len += 1;
        let line = self.lines.entry(network).or_insert_with_key(|network| {
            self.turns.push_back(network.clone());
            VecDeque::new()
        });
        line.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        let network = self.turns.pop_front()?;
        let line = self.lines.get_mut(&network)?;
        let item = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&network);
        } else {
            self.turns.push_back(network);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// How many of a network wait.
    fn waiting(&self, network: &str) -> usize {
        self.lines.get(network).map_or(0, VecDeque::len)
    }

    /// How many wait in the longest line.
    fn longest(&self) -> usize {
        self.lines.values().map(VecDeque::len).max().unwrap_or(0)
    }

    /// The newest of the longest line.
    fn take_from_longest(&mut self) -> Option<T> {
        let network = self.turns.iter().max_by_key(|network| self.waiting(network))?.clone();
        let line = self.lines.get_mut(&network)?;
        let item = line.pop_back();
        if line.is_empty() {
            self.lines.remove(&network);
            self.turns.retain(|other| *other != network);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    fn retain(&mut self, fits: impl Fn(&T) -> bool) {
        self.lines.retain(|_, line| {
            line.retain(&fits);
            !line.is_empty()
        });
        self.turns.retain(|network| self.lines.contains_key(network));
        self.len = self.lines.values().map(VecDeque::len).sum();
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in(network: &str) -> HashOrigin {
        HashOrigin { purpose: HashPurpose::SignIn, network: network.into() }
    }

    fn registration(network: &str) -> HashOrigin {
        HashOrigin { purpose: HashPurpose::NewPassword, network: network.into() }
    }

    fn rest(queue: &mut HashQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn one_network_is_served_in_order_and_may_fill_the_queue() {
        let mut queue = HashQueue::new(4);
        for n in 0..4 {
            assert_eq!(queue.push(sign_in("a"), n), Pushed::Queued);
        }
        assert_eq!(queue.push(sign_in("a"), 4), Pushed::Refused(4));
        assert_eq!(rest(&mut queue), [0, 1, 2, 3]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn networks_are_served_in_turn() {
        let mut queue = HashQueue::new(10);
        for (network, n) in [("a", 0), ("a", 1), ("a", 2), ("b", 10), ("c", 20), ("b", 11)] {
            assert_eq!(queue.push(sign_in(network), n), Pushed::Queued);
        }
        assert_eq!(rest(&mut queue), [0, 10, 20, 1, 11, 2]);
    }

    #[test]
    fn purposes_are_served_in_turn() {
        let mut queue = HashQueue::new(10);
        for n in 0..4 {
            queue.push(registration(&format!("bot {n}")), n);
        }
        for n in 10..12 {
            queue.push(sign_in("a"), n);
        }
        assert_eq!(rest(&mut queue), [10, 0, 11, 1, 2, 3]);
    }

    #[test]
    fn who_has_most_places_gives_one_up() {
        let mut queue = HashQueue::new(4);
        for n in 0..4 {
            queue.push(sign_in("flood"), n);
        }
        assert_eq!(queue.push(sign_in("a"), 10), Pushed::Displaced(3));
        assert_eq!(queue.push(sign_in("b"), 20), Pushed::Displaced(2));
        assert_eq!(queue.push(sign_in("a"), 11), Pushed::Refused(11), "not to gain what another would lose");
        assert_eq!(queue.push(sign_in("flood"), 5), Pushed::Refused(5));
        assert_eq!(queue.push(sign_in("c"), 30), Pushed::Displaced(1));
        assert_eq!(queue.push(sign_in("d"), 40), Pushed::Refused(40), "each has one");
        assert_eq!(rest(&mut queue), [0, 10, 20, 30]);
    }

    #[test]
    fn registrations_from_many_networks_do_not_keep_sign_ins_out() {
        let mut queue = HashQueue::new(4);
        for n in 0..4 {
            queue.push(registration(&format!("bot {n}")), n);
        }
        assert!(matches!(queue.push(sign_in("a"), 10), Pushed::Displaced(_)));
        assert!(matches!(queue.push(sign_in("a"), 11), Pushed::Displaced(_)));
        assert_eq!(queue.push(sign_in("a"), 12), Pushed::Refused(12), "half is theirs");
        assert_eq!(queue.push(registration("bot 9"), 9), Pushed::Refused(9));
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn those_who_went_away_leave_no_trace() {
        let mut queue = HashQueue::new(4);
        for (n, network) in ["a", "b", "a", "b"].into_iter().zip(0..) {
            queue.push(sign_in(n), network);
        }
        queue.retain(|n| n % 2 == 0);
        assert_eq!(queue.len(), 2);
        queue.retain(|n| *n == 2);
        assert_eq!(queue.push(sign_in("b"), 7), Pushed::Queued);
        assert_eq!(rest(&mut queue), [2, 7]);
    }

    #[test]
    fn nothing_is_lost_or_doubled() {
        let (mut queue, mut seed) = (HashQueue::new(7), 1_u64);
        let (mut entered, mut left) = (0_u32, Vec::new());
        for n in 0..10_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let dice = seed >> 33;
            let purpose = if dice % 3 == 0 { HashPurpose::SignIn } else { HashPurpose::NewPassword };
            let origin = HashOrigin { purpose, network: format!("{}", dice % 5) };
            if dice % 7 < 3 {
                left.extend(queue.pop());
            }
            entered += 1;
            match queue.push(origin, n) {
                Pushed::Queued => {}
                Pushed::Displaced(other) | Pushed::Refused(other) => left.push(other),
            }
            assert!(queue.len() <= 7);
        }
        left.extend(rest(&mut queue));
        left.sort_unstable();
        assert!(left.into_iter().eq(0..entered));
    }
}
