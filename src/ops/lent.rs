//! Bytes that somebody else may own: a mapped file's, or one's own. Must not know what they mean.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of shared bytes; a clone shares them too.
#[derive(Clone)]
pub struct Lent {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Lent {
    /// `None` where the owner has no such bytes.
    pub fn of(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }
}

impl From<Vec<u8>> for Lent {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(bytes), range }
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // `of` has looked, and what a map or a vector lends keeps its length.
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Lent({} bytes)", self.range.len())
    }
}
