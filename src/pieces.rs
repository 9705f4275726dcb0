//! When are pieces put together before they are written? When they are few bytes: to hand the system several pieces costs
//! it more than it costs to copy them into one. What is longer goes out as it lies.

use std::io::IoSlice;

/// In bytes: what is written at once and is not longer is put together. A head with a short answer is not.
const SHORT: usize = 4 << 10;

/// A place to put pieces together in.
pub struct Place([u8; SHORT]);

impl Default for Place {
    fn default() -> Self {
        Self([0; SHORT])
    }
}

impl Place {
    /// All pieces as one: the only one as it lies, and short ones together. None: they are too long for that.
    pub fn join<'p>(&'p mut self, pieces: &'p [IoSlice<'_>]) -> Option<&'p [u8]> {
        if let [only] = pieces {
            return Some(only);
        }
        let mut end = 0;
        for piece in pieces {
            let next = end + piece.len();
            self.0.get_mut(end..next)?.copy_from_slice(piece);
            end = next;
        }
        self.0.get(..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pieces_become_one_and_long_ones_stay() {
        let (head, long) = (IoSlice::new(b"head"), [b'x'; SHORT]);
        let join = |pieces: &[IoSlice<'_>]| Place::default().join(pieces).map(<[u8]>::to_vec);
        assert_eq!(join(&[]), Some(Vec::new()));
        assert_eq!(join(&[IoSlice::new(&long)]), Some(long.to_vec()));
        let both = [head, IoSlice::new(b""), IoSlice::new(b" and body")];
        assert_eq!(join(&both), Some(b"head and body".to_vec()));
        let just = [head, IoSlice::new(&long[..SHORT - 4])];
        assert_eq!(join(&just).map(|all| all.len()), Some(SHORT));
        assert_eq!(join(&[head, IoSlice::new(&long[..SHORT - 3])]), None);
    }
}
