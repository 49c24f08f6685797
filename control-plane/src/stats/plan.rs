//! One change of the rollups: computed, made durable by the merger, then applied.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message as _;

use super::Key;
use super::level::Level;
use super::pairs::PairId;
use super::rollups::{Rollups, Victim};
use super::stored::{self, Address, MARK, Size};
use super::totals::Totals;
use crate::repository::Blob;

/// Rows that were read, with their bytes.
pub(super) type Read = HashMap<Address, (Totals, u64)>;

/// What changes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    open: u64,
    reach: [u32; 3],
    /// What is new about pairs: their number, or the newest hour of their counts.
    pairs: HashMap<Key, (PairId, u32)>,
    /// Numbers that are taken back, and possibly given again.
    given_back: HashSet<PairId>,
    next_pair: PairId,
    rows: BTreeMap<Address, Totals>,
    sizes: BTreeMap<(Level, u32), Option<Size>>,
    dropped: u64,
    /// Bytes of each row in `rows`.
    bytes: HashMap<Address, u64>,
    puts: Vec<Blob>,
    deletes: Vec<Vec<u8>>,
}

impl Plan {
    /// Adds `counts`, by the second of their making, at `now`; while the clock is in
    /// doubt, that is the time before. What [`Rollups::victims`] and
    /// [`Rollups::steps_to_read`] named was `read`. `given_back` are pairs that have no
    /// rows, and are no more.
    pub(super) fn new<'a>(
        rollups: &Rollups,
        now: u64,
        counts: impl Iterator<Item = (u64, &'a HashMap<Key, Totals>)>,
        given_back: &HashSet<Key>,
        read: &Read,
    ) -> Self {
        let mut plan = Self {
            open: opened(rollups, now),
            reach: Level::ALL.map(|level| rollups.steps(level).reach),
            given_back: given_back.iter().filter_map(|key| rollups.pairs.id(key)).collect(),
            ..Self::default()
        };
        for victim in rollups.victims(now) {
            plan.remove(rollups, victim, read);
        }
        plan.fold(rollups, read);
        for (secs, counts) in counts {
            for (level, step) in rollups.places(secs, plan.open, now) {
                if step < plan.reach[level.index()] {
                    continue;
                }
                for (key, totals) in counts {
                    let pair = plan.pair(rollups, key, secs);
                    plan.add(rollups, Address { level, step, pair }, totals, read);
                }
            }
        }
        plan.write(rollups, read);
        plan
    }

    /// What has to be written.
    pub(super) fn take_blobs(&mut self) -> (Vec<Blob>, Vec<Vec<u8>>) {
        (std::mem::take(&mut self.puts), std::mem::take(&mut self.deletes))
    }

    /// What undoes [`Self::take_blobs`]: of each key the value before, or None where there
    /// was none. A removal is not undone: it will be tried again.
    pub(super) fn inverse(&self, rollups: &Rollups, read: &Read) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let rows = self.rows.keys().map(|address| {
            let before = rollups.stored(*address, read);
            (stored::row_key(*address), before.map(|(totals, _)| stored::row_value(totals)))
        });
        let written = self.sizes.iter().filter(|(_, size)| size.is_some());
        let sizes = written.map(|((level, step), _)| {
            let was_open = *step == rollups.open_step(*level);
            let before = rollups.steps(*level).sizes.get(step).filter(|_| !was_open);
            (stored::step_key(*level, *step), before.map(prost::Message::encode_to_vec))
        });
        let ids = self.pairs.values().map(|(id, _)| id).chain(&self.given_back);
        let pairs = ids.map(|id| {
            let before = rollups.pairs.get(*id);
            (stored::pair_key(*id), before.map(|(key, hour)| stored::pair_blob(*id, key, hour).1))
        });
        let mark = (rollups.open > 0).then(|| rollups.mark().encode_to_vec());
        rows.chain(sizes).chain(pairs).chain([(MARK.to_vec(), mark)]).collect()
    }

    /// Takes the change over, when it is durable.
    pub(super) fn apply(self, rollups: &mut Rollups) {
        for level in Level::ALL {
            let steps = &mut rollups.levels[level.index()];
            steps.reach = self.reach[level.index()];
            if level.step_at(self.open) != level.step_at(rollups.open) {
                steps.live.clear();
            }
        }
        rollups.open = self.open;
        rollups.dropped += self.dropped;
        for id in self.given_back {
            rollups.pairs.remove(id);
        }
        for (key, (id, hour)) in self.pairs {
            rollups.pairs.insert(id, key, hour);
        }
        for (address, totals) in self.rows {
            if address.step == rollups.open_step(address.level) {
                let bytes = self.bytes.get(&address).copied().unwrap_or_default();
                rollups.levels[address.level.index()].live.insert(address.pair, (totals, bytes));
            }
        }
        for ((level, step), size) in self.sizes {
            rollups.resize(level, step, size);
        }
    }

    fn remove(&mut self, rollups: &Rollups, victim: Victim, read: &Read) {
        let Victim { level, step, for_room } = victim;
        let rows = read.keys().filter(|address| address.level == level && address.step == step);
        self.deletes.extend(rows.map(|address| stored::row_key(*address)));
        self.deletes.push(stored::step_key(level, step));
        self.sizes.insert((level, step), None);
        if for_room {
            self.reach[level.index()] = step + 1;
            self.dropped += rollups.steps(level).sizes.get(&step).map_or(0, |size| size.rows);
        }
    }

    /// Adds the steps that end to those they are part of.
    fn fold(&mut self, rollups: &Rollups, read: &Read) {
        for (level, coarser) in [(Level::TenSeconds, Level::Minute), (Level::Minute, Level::Hour)] {
            let ended = rollups.open_step(level);
            if ended == level.step_at(self.open) {
                continue;
            }
            let step = rollups.open_step(coarser);
            let live = rollups.steps(level).live.iter();
            let mut rows: HashMap<PairId, Totals> =
                live.map(|(pair, (totals, _))| (*pair, totals.clone())).collect();
            // What was folded into the minute just now ends with it.
            let ending =
                self.rows.iter().filter(|(address, _)| (address.level, address.step) == (level, ended));
            rows.extend(ending.map(|(address, totals)| (address.pair, totals.clone())));
            for (pair, totals) in rows {
                self.add(rollups, Address { level: coarser, step, pair }, &totals, read);
            }
        }
    }

    /// The number of a pair that has counts of `secs`.
    fn pair(&mut self, rollups: &Rollups, key: &Key, secs: u64) -> PairId {
        let hour = Level::Hour.step_at(secs);
        let stored = || {
            let id = rollups.pairs.id(key)?;
            Some((id, rollups.pairs.get(id)?.1))
        };
        match self.pairs.get(key).copied().or_else(stored) {
            Some((id, known)) if known >= hour => id,
            Some((id, _)) => {
                self.pairs.insert(key.clone(), (id, hour));
                id
            }
            None => {
                let id = self.free_id(rollups);
                self.pairs.insert(key.clone(), (id, hour));
                id
            }
        }
    }

    fn free_id(&mut self, rollups: &Rollups) -> PairId {
        let taken = |id| rollups.pairs.get(id).is_some() && !self.given_back.contains(&id);
        // There are far fewer pairs than numbers.
        let id = (self.next_pair..PairId::MAX).find(|id| !taken(*id)).unwrap_or(PairId::MAX);
        self.next_pair = id.saturating_add(1);
        id
    }

    fn add(&mut self, rollups: &Rollups, address: Address, totals: &Totals, read: &Read) {
        let row = self.rows.entry(address).or_insert_with(|| {
            rollups.stored(address, read).map(|(totals, _)| totals.clone()).unwrap_or_default()
        });
        row.merge(totals);
    }

    /// Makes blobs of what changed.
    fn write(&mut self, rollups: &Rollups, read: &Read) {
        for (address, totals) in &self.rows {
            let (key, value) = (stored::row_key(*address), stored::row_value(totals));
            let bytes = (key.len() + value.len()) as u64;
            let before = rollups.stored(*address, read);
            let known = rollups.steps(address.level).sizes.get(&address.step);
            let size = self.sizes.entry((address.level, address.step)).or_insert(known.copied());
            let mut grown = size.unwrap_or_default();
            grown.rows += u64::from(before.is_none());
            grown.bytes = (grown.bytes + bytes).saturating_sub(before.map_or(0, |(_, bytes)| *bytes));
            *size = Some(grown);
            self.bytes.insert(*address, bytes);
            self.puts.push((key, value));
        }
        let closed = Level::ALL.map(|level| (level, rollups.open_step(level)));
        for (level, step) in closed {
            if let Some(size) = rollups.steps(level).sizes.get(&step) {
                self.sizes.entry((level, step)).or_insert(Some(*size));
            }
        }
        for ((level, step), size) in &self.sizes {
            // The rows of an open step are read at the start: its size is not written.
            if let Some(size) = size
                && *step != level.step_at(self.open)
            {
                self.puts.push((stored::step_key(*level, *step), size.encode_to_vec()));
            }
        }
        self.puts.extend(self.pairs.iter().map(|(key, (id, hour))| stored::pair_blob(*id, key, *hour)));
        let given: HashSet<_> = self.pairs.values().map(|(id, _)| *id).collect();
        self.deletes.extend(self.given_back.difference(&given).map(|id| stored::pair_key(*id)));
        let mark = stored::Mark { open: self.open, reach: self.reach.to_vec() };
        if mark != rollups.mark() {
            self.puts.push((MARK.to_vec(), mark.encode_to_vec()));
        }
    }
}

/// The step that is open at `now`: never an earlier one than before, and none in another
/// hour that has rows already. These are from a time when the clock was in doubt, and in
/// all lengths: folding would count them twice. What comes in such an hour goes to all
/// lengths at once, too.
pub(super) fn opened(rollups: &Rollups, now: u64) -> u64 {
    let level = Level::TenSeconds;
    let open = level.start_of(level.step_at(now)).max(rollups.open);
    let hour = Level::Hour.step_at(open);
    let taken =
        hour != rollups.open_step(Level::Hour) && rollups.steps(Level::Hour).sizes.contains_key(&hour);
    if taken { rollups.open } else { open }
}
