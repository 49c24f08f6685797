//! Which pairs of a report get a place, and which ones make room.

use super::{Batch, Key, Merger, Totals};

impl Merger {
    /// Takes the totals of `key` into the batch. False: there is no place for it.
    pub(super) fn admit(&mut self, batch: &mut Batch, key: &Key) -> bool {
        let before = self.stats.total(key).filter(|_| !batch.given_back.contains(key));
        if let Some(before) = before {
            batch.totals.insert(key.clone(), before);
            return true;
        }
        let known = self.names.know(key, &self.repository);
        let places = match (known, self.repository.state().version.revision) {
            (true, _) => self.stats.places(),
            // A store that is new, or was lost, while agents go on with what they hold:
            // their counts are kept, and half of the room is left for what comes.
            (false, 0) => self.stats.places() / 2,
            (false, _) => return false,
        };
        let taken = self.stats.taken() + batch.new_keys - batch.given_back.len();
        if taken >= places && !(known && self.make_room(batch)) {
            return false;
        }
        batch.new_keys += 1;
        batch.totals.insert(key.clone(), Totals::default());
        true
    }

    /// Gives back a key that is in no configuration and has no rows.
    fn make_room(&mut self, batch: &mut Batch) -> bool {
        let spare = batch.spare.get_or_insert_with(|| {
            let mut spare = self.stats.without_rows();
            spare.retain(|key| !self.names.know(key, &self.repository));
            spare
        });
        while let Some(key) = spare.pop() {
            if !batch.totals.contains_key(&key) {
                tracing::info!(
                    key.deployment,
                    key.model,
                    "the totals of this pair made room: it is in no configuration and was not used for long"
                );
                return batch.given_back.insert(key);
            }
        }
        false
    }
}
