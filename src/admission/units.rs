//! How much that is no token was taken in the last minute? Most limits name none of it and most requests take none, so what is
//! kept of it is kept apart.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::window::Window;
use crate::usage::{UNITS, Unit, Usage};

/// What was taken of each unit; in the order of [`Unit::ALL`].
#[derive(Debug, Default)]
pub(super) struct Windows([Window; UNITS]);

impl Windows {
    pub(super) fn of(&mut self, unit: Unit) -> &mut Window {
        let [characters, seconds, images, searches] = &mut self.0;
        match unit {
            Unit::Characters => characters,
            Unit::Seconds => seconds,
            Unit::Images => images,
            Unit::Searches => searches,
        }
    }

    /// Counts what was used before this began.
    pub(super) fn remember(&mut self, usage: &Usage, at: Instant) {
        for unit in Unit::ALL {
            let count = usage.units(unit);
            if count > 0 {
                self.of(unit).take(at, count);
            }
        }
    }

    /// Whether none of it counts any more.
    pub(super) fn are_idle(&mut self, now: Instant) -> bool {
        self.0.iter_mut().all(|window| window.sum(now) == 0)
    }
}

/// What a request takes of limits in the one unit that it has of its own.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) unit: Unit,
    /// When how many were counted, at each gate of its charge.
    pub(super) taken: SmallVec<[Option<(Instant, u64)>; 2]>,
    /// How many were used.
    pub(super) used: u64,
}

impl Own {
    pub(super) fn of(unit: Unit, gates: usize) -> Self {
        Self {
            unit,
            taken: SmallVec::from_elem(None, gates),
            used: 0,
        }
    }

    /// What was counted at a gate, if that is not what was used.
    pub(super) fn wrong(&self, gate: usize) -> Option<(Instant, u64)> {
        let taken = self.taken.get(gate).copied().flatten();
        taken.filter(|(_, amount)| *amount != self.used)
    }
}
