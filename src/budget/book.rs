//! The part of one VM in keeping the budget: what each of its requests holds.

use super::{
    Budget, KeyName, MAX_KEPT, NoRoom, OF_A_REQUEST, OF_AN_ANSWER, blocks::Blocks,
    connections::KEPT_MS, ledger, slices::Slices,
};
use crate::{deadline::Deadline, host::SharedData, known::Known};

/// The time for which the hold of a request that is to run again is kept for its next try, in
/// milliseconds. Envoy begins that at once, or never.
const AGAIN_MS: u64 = 1_000;

/// The holds of one VM's requests.
#[derive(Debug)]
pub struct Book {
    blocks: Blocks,
    holds: Known<u32, Hold>,
    /// The holds of tries that are over, whose requests are to run again.
    leaving: Vec<(u32, Hold, Deadline)>,
    /// The keys of requests that are over, of which a connection stays that no key may keep.
    staying: Vec<(KeyName, Deadline)>,
}

/// The memory that one request holds.
#[derive(Debug)]
struct Hold {
    key: KeyName,
    /// The bytes that it is charged.
    charged: u64,
    /// The bytes of its body so far.
    bytes: u64,
    slices: Slices,
    /// The bytes that its body was decoded to.
    decoded: u64,
    /// The bytes that its decoder takes, which are charged beside the others until it is done.
    decoder: u64,
    /// The bytes of its answer that are held back, beyond those that every request is charged.
    answer: u64,
    /// Its body is there already: it runs again.
    is_whole: bool,
}

// === impl Book ===

impl Book {
    /// Makes that of the VM of this number, which no other VM of this Envoy has.
    pub fn new(vm: u64, budget: Budget) -> Self {
        Self {
            blocks: Blocks::new(ledger::HELD, vm, budget),
            holds: Known::default(),
            leaving: Vec::new(),
            staying: Vec::new(),
        }
    }

    /// Changes the bounds, for the requests that come.
    pub fn set_budget(&mut self, budget: Budget) {
        self.blocks.set_budget(budget);
    }

    /// Begins to hold the request of `context` from `key`, with a body of that `length` as far as its
    /// headers tell.
    ///
    /// # Errors
    /// There is no room for it; nothing is held.
    pub fn begin(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        key: KeyName,
        length: u64,
        now: u64,
    ) -> Result<(), NoRoom> {
        let charge = OF_A_REQUEST.saturating_add(length.min(MAX_KEPT));
        let most = self.blocks.budget().of_key;
        if charge > most {
            return Err(NoRoom::TooLarge { most });
        }
        self.blocks.charge(shared, key, charge, now)?;
        self.holds.insert(context, Hold::new(key, charge));
        Ok(())
    }

    /// Goes on holding a request that runs again, as `context`, after the try of context `last`.
    pub fn again(&mut self, last: u32, context: u32) {
        let hold = match self.leaving.iter().position(|(one, ..)| *one == last) {
            Some(at) => Some(self.leaving.swap_remove(at).1),
            None => self.holds.remove(&last),
        };
        if let Some(hold) = hold {
            let is_whole = true;
            self.holds.insert(context, Hold { is_whole, ..hold });
        }
    }

    /// Holds a piece more of the body of `context`.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn grow(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        piece: usize,
        now: u64,
    ) -> Result<(), NoRoom> {
        let piece = u64::try_from(piece).unwrap_or(u64::MAX);
        let Some(hold) = self.holds.get_mut(&context) else {
            return Ok(());
        };
        if hold.is_whole || hold.bytes >= MAX_KEPT {
            return Ok(());
        }
        hold.bytes = hold.bytes.saturating_add(piece);
        hold.slices.push(piece);
        self.charge_growth(shared, context, now)
    }

    /// Holds `bytes` that the body of `context` was decoded to and a decoder of that size, in place of
    /// what these took so far.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn hold_decoded(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        bytes: u64,
        decoder: u64,
        now: u64,
    ) -> Result<(), NoRoom> {
        let Some(hold) = self.holds.get_mut(&context) else {
            return Ok(());
        };
        hold.decoded = bytes;
        let most = self.blocks.budget().of_key;
        if hold.total().saturating_add(decoder) > most {
            return Err(NoRoom::TooLarge { most });
        }
        let (key, before) = (hold.key, std::mem::take(&mut hold.decoder));
        self.blocks.give_back(key, before);
        self.charge_growth(shared, context, now)?;
        self.blocks.charge(shared, key, decoder, now)?;
        if let Some(hold) = self.holds.get_mut(&context) {
            hold.decoder = decoder;
        }
        Ok(())
    }

    /// Holds `size` bytes of the answer to `context` back, in place of what was held of it so far. The
    /// first of them every request is charged anyway.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn hold_answer(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        size: usize,
        now: u64,
    ) -> Result<(), NoRoom> {
        let bytes = u64::try_from(size).unwrap_or(u64::MAX);
        let bytes = bytes.saturating_sub(OF_AN_ANSWER);
        let Some(hold) = self.holds.get(&context) else {
            return Ok(());
        };
        if hold.answer == bytes {
            return Ok(());
        }
        let (key, more) = (hold.key, bytes.saturating_sub(hold.answer));
        if more > 0 {
            self.blocks.charge(shared, key, more, now)?;
        } else {
            let less = hold.answer.saturating_sub(bytes);
            self.blocks.give_back(key, less);
        }
        if let Some(hold) = self.holds.get_mut(&context) {
            hold.answer = bytes;
        }
        Ok(())
    }

    /// Ends what `context` holds: its stream is over. Where the request `runs_again`, its next try takes
    /// it over.
    pub fn end(&mut self, context: u32, runs_again: bool, now: u64) {
        let Some(hold) = self.holds.remove(&context) else {
            return;
        };
        if runs_again {
            let until = Deadline::after(now, AGAIN_MS);
            self.leaving.push((context, hold, until));
        } else {
            self.free(&hold);
        }
    }

    /// Ends what `context` holds, but for what every request is charged: that is held for as long as Envoy keeps its
    /// connection, which its caller may keep no longer and nobody closes.
    pub fn end_without_answer(&mut self, context: u32, now: u64) {
        let Some(mut hold) = self.holds.remove(&context) else {
            return;
        };
        hold.charged = hold.charged.saturating_sub(OF_A_REQUEST);
        self.free(&hold);
        let until = Deadline::after(now, KEPT_MS);
        self.staying.push((hold.key, until));
    }

    /// Gives back what was not used for a while, and renews the rest.
    pub fn tick(&mut self, shared: &mut impl SharedData, now: u64) {
        let (over, leaving) = std::mem::take(&mut self.leaving)
            .into_iter()
            .partition(|(_, _, until)| until.is_due(now));
        self.leaving = leaving;
        let over: Vec<(u32, Hold, Deadline)> = over;
        for (_, hold, _) in over {
            self.free(&hold);
        }
        let Self {
            blocks, staying, ..
        } = self;
        staying.retain(|(key, until)| {
            let stays = !until.is_due(now);
            if !stays {
                blocks.give_back(*key, OF_A_REQUEST);
            }
            stays
        });
        self.blocks.tick(shared, now);
    }

    /// Charges what `context` holds more than it was charged.
    fn charge_growth(
        &mut self,
        shared: &mut impl SharedData,
        context: u32,
        now: u64,
    ) -> Result<(), NoRoom> {
        let Some(hold) = self.holds.get(&context) else {
            return Ok(());
        };
        let (key, more) = (hold.key, hold.total().saturating_sub(hold.charged));
        if more == 0 {
            return Ok(());
        }
        self.blocks.charge(shared, key, more, now)?;
        if let Some(hold) = self.holds.get_mut(&context) {
            hold.charged = hold.charged.saturating_add(more);
        }
        Ok(())
    }

    fn free(&mut self, hold: &Hold) {
        let held = hold.charged.saturating_add(hold.decoder);
        self.blocks
            .give_back(hold.key, held.saturating_add(hold.answer));
    }
}

// === impl Hold ===

impl Hold {
    fn new(key: KeyName, charged: u64) -> Self {
        Self {
            key,
            charged,
            bytes: 0,
            slices: Slices::default(),
            decoded: 0,
            decoder: 0,
            answer: 0,
            is_whole: false,
        }
    }

    fn total(&self) -> u64 {
        let body = self.slices.taken();
        OF_A_REQUEST
            .saturating_add(body)
            .saturating_add(self.decoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{budget::blocks, host::fake::FakeSharedData, id::Id};

    const NOW: u64 = 1_790_000_000_000;
    const MIB: u64 = 1024 * 1024;
    const BUDGET: Budget = Budget {
        all: 64 * MIB,
        of_key: 24 * MIB,
    };

    fn key(n: u64) -> KeyName {
        KeyName::of(&Id::try_from(format!("key_{n}")).unwrap())
    }

    /// An Envoy of two workers.
    struct Envoy {
        shared: FakeSharedData,
        books: [Book; 2],
        now: u64,
    }

    impl Envoy {
        fn new(budget: Budget) -> Self {
            let mut shared = FakeSharedData::default();
            ledger::HELD.prepare(&mut shared);
            let books = [1, 2].map(|vm| Book::new(vm, budget));
            Self {
                shared,
                books,
                now: NOW,
            }
        }

        fn begin(&mut self, vm: usize, context: u32, of: u64, length: u64) -> Result<(), NoRoom> {
            self.books[vm].begin(&mut self.shared, context, key(of), length, self.now)
        }

        fn grow(&mut self, vm: usize, context: u32, piece: usize) -> Result<(), NoRoom> {
            self.books[vm].grow(&mut self.shared, context, piece, self.now)
        }

        fn tick(&mut self, now: u64) {
            for book in &mut self.books {
                book.tick(&mut self.shared, now);
            }
        }

        /// As many uploads of 2 MiB as there is room for, spread over the workers.
        fn flood(&mut self, of: u64, first: u32) -> u32 {
            let mut fits = |context: &u32| self.begin(*context as usize % 2, *context, of, 2 * MIB);
            let refused = (first..).find(|context| fits(context).is_err());
            refused.unwrap() - first
        }

        fn held(&self) -> u64 {
            self.books
                .iter()
                .flat_map(|book| book.holds.values())
                .map(|hold| hold.charged + hold.decoder)
                .sum()
        }

        fn decodes(&mut self, context: u32, bytes: u64, decoder: u64) -> Result<(), NoRoom> {
            self.books[0].hold_decoded(&mut self.shared, context, bytes, decoder, self.now)
        }
    }

    #[test]
    fn a_key_has_its_bound_over_all_workers_and_others_always_find_room() {
        let mut envoy = Envoy::new(BUDGET);
        assert_eq!(envoy.flood(1, 0), 11, "24 MiB of 2 MiB and 128 KiB each");
        assert_eq!(
            envoy.begin(0, 900, 1, 2 * MIB),
            Err(NoRoom::Key { most: 24 * MIB })
        );
        // 40 MiB are left; the second has half of that, the third half of what is left then.
        assert_eq!(envoy.flood(2, 100), 9);
        assert_eq!(envoy.flood(3, 200), 5);
        assert_eq!(envoy.flood(4, 300), 2);
        assert_eq!(envoy.begin(0, 901, 4, 2 * MIB), Err(NoRoom::Others));
        assert!(envoy.flood(5, 400) >= 1, "whoever has nothing finds room");
        assert!(envoy.held() <= BUDGET.all);
    }

    #[test]
    fn what_ends_is_free_for_the_next() {
        let mut envoy = Envoy::new(BUDGET);
        let count = envoy.flood(1, 0);
        envoy.books[0].end(0, false, NOW);
        assert_eq!(envoy.begin(0, 50, 1, 2 * MIB), Ok(()));
        for context in 0..=50 {
            envoy.books[context as usize % 2].end(context, false, NOW);
        }
        envoy.tick(NOW + blocks::SPARE_MS);
        assert_eq!(envoy.shared.read("latchkey/3/held").unwrap().0, b"");
        assert_eq!(envoy.flood(1, 0), count);
    }

    #[test]
    fn what_left_its_connection_open_is_held_until_that_is_closed() {
        let mut envoy = Envoy::new(BUDGET);
        for context in 0..11 {
            assert_eq!(envoy.begin(0, context, 1, 2 * MIB), Ok(()));
            envoy.books[0].end_without_answer(context, NOW);
        }
        // 24 MiB are 192 times 128 KiB.
        let begins = |envoy: &mut Envoy| {
            let mut fits = |context: &u32| envoy.begin(*context as usize % 2, *context, 1, 0);
            let refused = (100..).find(|context| fits(context).is_err()).unwrap();
            for context in 100..refused {
                envoy.books[context as usize % 2].end(context, false, NOW);
            }
            refused - 100
        };
        assert_eq!(begins(&mut envoy), 192 - 11);
        envoy.tick(NOW + KEPT_MS - 1);
        assert_eq!(begins(&mut envoy), 192 - 11);
        envoy.tick(NOW + KEPT_MS);
        assert_eq!(begins(&mut envoy), 192);
    }

    /// Thousands of people with a short request each, one after the other, hold nothing together.
    #[test]
    fn what_is_kept_for_later_is_in_nobodys_way() {
        let mut envoy = Envoy::new(BUDGET);
        for of in 0..5_000 {
            let vm = usize::from(of % 3 == 0);
            assert_eq!(envoy.begin(vm, 1, of, 0), Ok(()), "{of}");
            envoy.books[vm].end(1, false, NOW);
            // The other VM's clock stands still for as long as one may be busy.
            if of % 40 == 0 {
                envoy.tick(NOW);
            }
        }
    }

    #[test]
    fn a_body_is_charged_what_its_pieces_take_and_what_it_tells() {
        let mut envoy = Envoy::new(BUDGET);
        envoy.begin(0, 1, 1, 0).unwrap();
        let pieces = (0..).find(|_| envoy.grow(0, 1, 600).is_err());
        // 600 bytes take 16 KiB.
        assert_eq!(pieces, Some((24 * 1024 - 128) / 16));
        envoy.begin(0, 2, 2, 8 * MIB).unwrap();
        let before = envoy.held();
        for _ in 0..8 * 64 {
            envoy.grow(0, 2, 16 * 1024).unwrap();
        }
        assert_eq!(envoy.held(), before, "it was told");
        assert_eq!(
            envoy.begin(0, 3, 3, 25 * MIB),
            Err(NoRoom::TooLarge { most: 24 * MIB })
        );
    }

    #[test]
    fn what_is_too_long_to_be_kept_is_charged_no_more() {
        let mut envoy = Envoy::new(Budget {
            all: 200 * MIB,
            of_key: 40 * MIB,
        });
        envoy.begin(0, 1, 1, 100 * MIB).unwrap();
        for _ in 0..100 * 16 {
            envoy.grow(0, 1, 64 * 1024).unwrap();
        }
        assert_eq!(envoy.held(), OF_A_REQUEST + MAX_KEPT);
    }

    #[test]
    fn a_body_that_is_decoded_counts_as_what_it_becomes() {
        let mut envoy = Envoy::new(BUDGET);
        envoy.begin(0, 1, 1, 0).unwrap();
        assert_eq!(envoy.decodes(1, 8 * MIB, 0), Ok(()));
        let too_large = NoRoom::TooLarge { most: 24 * MIB };
        assert_eq!(envoy.decodes(1, 30 * MIB, 0), Err(too_large));
    }

    #[test]
    fn a_decoder_counts_until_it_is_done() {
        let mut envoy = Envoy::new(BUDGET);
        envoy.begin(0, 1, 1, 0).unwrap();
        envoy.begin(0, 2, 1, 0).unwrap();
        assert_eq!(envoy.decodes(1, MIB, 12 * MIB), Ok(()));
        assert_eq!(envoy.held(), 13 * MIB + 2 * OF_A_REQUEST);
        let no_room = NoRoom::Key { most: 24 * MIB };
        assert_eq!(envoy.decodes(2, MIB, 12 * MIB), Err(no_room));
        // As it goes on it holds the same decoder and more of the body.
        assert_eq!(envoy.decodes(1, 2 * MIB, 12 * MIB), Ok(()));
        assert_eq!(envoy.held(), 15 * MIB + 2 * OF_A_REQUEST);
        assert_eq!(envoy.decodes(1, 3 * MIB, 0), Ok(()));
        assert_eq!(envoy.decodes(2, 2 * MIB, 12 * MIB), Ok(()));
        // Its caller goes away with it.
        envoy.books[0].end(2, false, NOW);
        envoy.begin(0, 3, 1, 0).unwrap();
        assert_eq!(envoy.decodes(3, MIB, 12 * MIB), Ok(()));
        let too_large = NoRoom::TooLarge { most: 24 * MIB };
        assert_eq!(envoy.decodes(3, 8 * MIB, 20 * MIB), Err(too_large));
    }

    #[test]
    fn a_request_that_runs_again_keeps_what_it_holds() {
        let mut envoy = Envoy::new(BUDGET);
        for ends_first in [true, false] {
            envoy.begin(0, 1, 1, 20 * MIB).unwrap();
            if ends_first {
                envoy.books[0].end(1, true, NOW);
            }
            envoy.books[0].again(1, 2);
            envoy.books[0].end(1, true, NOW);
            envoy.grow(0, 2, 20 << 20).unwrap();
            assert_eq!(envoy.held(), 20 * MIB + OF_A_REQUEST);
            envoy.books[0].end(2, false, NOW);
        }
        // Its caller has gone.
        envoy.begin(0, 3, 1, 20 * MIB).unwrap();
        envoy.books[0].end(3, true, NOW);
        assert!(envoy.begin(0, 4, 1, 20 * MIB).is_err());
        envoy.tick(NOW + AGAIN_MS);
        assert_eq!(envoy.begin(0, 4, 1, 20 * MIB), Ok(()));
    }

    #[test]
    fn a_crashed_vm_holds_nothing_once_its_lease_has_lapsed() {
        let mut envoy = Envoy::new(BUDGET);
        envoy.begin(0, 1, 1, 20 * MIB).unwrap();
        envoy.books[0] = Book::new(3, BUDGET);
        let at = |envoy: &mut Envoy, now| {
            envoy.books[1].begin(&mut envoy.shared, 2, key(1), 20 * MIB, now)
        };
        assert!(at(&mut envoy, NOW + ledger::LEASE_MS - 1).is_err());
        assert_eq!(at(&mut envoy, NOW + ledger::LEASE_MS), Ok(()));
    }

    #[test]
    fn what_is_held_for_long_is_renewed() {
        let mut envoy = Envoy::new(BUDGET);
        envoy.begin(0, 1, 1, 20 * MIB).unwrap();
        for second in 0..60 {
            envoy.tick(NOW + second * 1_000);
        }
        let late = envoy.books[1].begin(&mut envoy.shared, 2, key(1), 20 * MIB, NOW + 60_000);
        assert!(late.is_err());
    }

    proptest! {
        #[test]
        fn no_more_is_held_than_the_bounds(
            steps in prop::collection::vec((0usize..2, 0u64..4, 0u32..40, 0u64..9 * MIB, 0u8..5), 1..300),
        ) {
            let mut envoy = Envoy::new(BUDGET);
            for (vm, of, context, size, step) in steps {
                match step {
                    0 | 1 if !envoy.books[vm].holds.contains_key(&context) => {
                        let _ = envoy.begin(vm, context, of, size);
                    }
                    2 => envoy.books[vm].end(context, size % 2 == 0, envoy.now),
                    3 => {
                        let (bytes, decoder) = (size, size % 3 * size);
                        let book = &mut envoy.books[vm];
                        let _ = book.hold_decoded(&mut envoy.shared, context, bytes, decoder, envoy.now);
                    }
                    _ => {
                        let _ = envoy.grow(vm, context, size as usize / 8);
                    }
                }
                if size % 7 == 0 {
                    envoy.now += 700;
                    envoy.tick(envoy.now);
                }
                prop_assert!(envoy.held() <= BUDGET.all);
                for one in 0..4 {
                    let name = key(one);
                    let holds = envoy.books.iter().flat_map(|book| book.holds.values());
                    let own = holds.filter(|hold| hold.key == name);
                    let own: u64 = own.map(|hold| hold.charged + hold.decoder).sum();
                    prop_assert!(own <= BUDGET.of_key, "{}", own);
                }
            }
            for context in 0..40 {
                for book in &mut envoy.books {
                    book.end(context, false, envoy.now);
                }
            }
            envoy.tick(envoy.now + 2_000);
            envoy.tick(envoy.now + 4_000);
            let left = envoy.shared.read("latchkey/3/held").unwrap().0;
            prop_assert!(left.is_empty(), "{} bytes", left.len());
        }
    }
}
