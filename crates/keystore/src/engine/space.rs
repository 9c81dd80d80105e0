//! Space that erased key has left in the database file, given back when the store is opened.
//!
//! redb uses free pages again and makes the file smaller only where its end is free. A file that is mostly free is
//! rewritten: that takes about as long as writing what is left in it, so there is a limit on that.

use redb::{CompactionError, Database};

use crate::StoreError;

/// A file of up to this size stays as it is.
const FILE_BYTES_MIN: u64 = 4 << 20;
/// What is moved at most: some seconds of an opening.
const USED_BYTES_MAX: u64 = 256 << 20;

/// Makes the file smaller where more than half of its `bytes` is free.
pub(super) fn give_back(db: &mut Database, bytes: u64) -> Result<(), StoreError> {
    if bytes <= FILE_BYTES_MIN {
        return Ok(());
    }
    let transaction = db.begin_write()?;
    let stats = transaction.stats()?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    transaction.abort()?;
    if used > bytes / 2 || used > USED_BYTES_MAX {
        return Ok(());
    }
    match db.compact() {
        Ok(_) => Ok(()),
        Err(CompactionError::Storage(error)) => Err(error.into()),
        Err(error) => Err(StoreError::io("give space back", &error)),
    }
}
