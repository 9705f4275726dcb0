//! When are pieces put together before they are written? When they are few bytes: to hand the system several pieces costs
//! it more than it costs to copy them into one. What is longer goes out as it lies.

use std::io::IoSlice;

use smallvec::SmallVec;

/// In bytes: what is not longer all together is put together, as a head with a short answer is.
const SHORT: usize = 4 << 10;

/// Gives all pieces as one to whoever writes them: the only one as it lies, and short ones together. None: they are too
/// long for that.
pub fn joined<R>(pieces: &[IoSlice<'_>], write: impl FnOnce(Option<&[u8]>) -> R) -> R {
    if let [only] = pieces {
        return write(Some(only));
    }
    // Not cleared beforehand, as an array would be.
    let mut together = SmallVec::<[u8; SHORT]>::new();
    for piece in pieces {
        if together.len() + piece.len() > SHORT {
            return write(None);
        }
        together.extend_from_slice(piece);
    }
    write(Some(&together))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_pieces_become_one_and_long_ones_stay() {
        let (head, long) = (IoSlice::new(b"head"), [b'x'; SHORT]);
        let join = |pieces: &[IoSlice<'_>]| joined(pieces, |all| all.map(<[u8]>::to_vec));
        assert_eq!(join(&[]), Some(Vec::new()));
        assert_eq!(join(&[IoSlice::new(&long)]), Some(long.to_vec()));
        let both = [head, IoSlice::new(b""), IoSlice::new(b" and body")];
        assert_eq!(join(&both), Some(b"head and body".to_vec()));
        let just = [head, IoSlice::new(&long[..SHORT - 4])];
        assert_eq!(join(&just).map(|all| all.len()), Some(SHORT));
        assert_eq!(join(&[head, IoSlice::new(&long[..SHORT - 3])]), None);
    }
}
