//! What happened in a world, and what can be asked of that.

use std::ops::Range;

/// How a request came to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It was asked first.
    First,
    /// It was asked, too, as the first took too long.
    Beside,
    /// Others had failed.
    Next,
}

/// A request at a target.
#[derive(Debug)]
pub struct Try {
    pub at: f64,
    pub actor: usize,
    /// The same for all tries of a request.
    pub request: u64,
    pub turn: Turn,
    /// What it belongs to.
    pub group: usize,
    /// From its arrival to its first content. None: there was none.
    pub waited: Option<f64>,
}

/// From now on a target has so many requests under way.
pub struct Step {
    pub at: f64,
    pub actor: usize,
    pub busy: u32,
}

/// All of it, in order.
pub struct Log {
    pub names: Vec<String>,
    pub tries: Vec<Try>,
    pub steps: Vec<Step>,
    /// When somebody got no answer.
    pub lost: Vec<f64>,
    pub end: f64,
}

impl Log {
    pub fn of(names: Vec<String>) -> Self {
        Self {
            names,
            tries: Vec::new(),
            steps: Vec::new(),
            lost: Vec::new(),
            end: 0.0,
        }
    }

    /// The number of a target.
    pub fn number(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).unwrap()
    }

    /// Another try; gives its place.
    pub fn enters(&mut self, entry: Try) -> usize {
        self.tries.push(entry);
        self.tries.len() - 1
    }

    /// How many came to a target in such a way in a time.
    pub fn turns(&self, turn: Turn, when: Range<f64>) -> f64 {
        let all = self.tries.iter();
        let those = all.filter(|it| it.turn == turn && when.contains(&it.at));
        those.fold(0.0, |sum, _| sum + 1.0)
    }

    /// Beside which part of the requests of a time another target was asked.
    pub fn hedged(&self, when: Range<f64>) -> f64 {
        self.turns(Turn::Beside, when.clone()) / self.turns(Turn::First, when)
    }

    /// The most that this part was from the beginning to any time.
    pub fn most_hedged(&self) -> f64 {
        let (mut asked, mut hedged, mut most) = (0.0, 0.0, 0.0_f64);
        for it in &self.tries {
            match it.turn {
                Turn::First => asked += 1.0,
                Turn::Beside => hedged += 1.0,
                Turn::Next => {}
            }
            most = most.max(hedged / asked);
        }
        most
    }

    /// Those that were sent to a target in a time.
    pub fn asked(&self, name: &str, when: Range<f64>) -> usize {
        let actor = self.number(name);
        let all = self.tries.iter();
        all.filter(|it| it.actor == actor && when.contains(&it.at))
            .count()
    }

    /// Which part of all answers of a time was a target's.
    pub fn share(&self, name: &str, when: Range<f64>) -> f64 {
        let actor = self.number(name);
        let all = self.tries.iter();
        let answered = all.filter(|it| it.waited.is_some() && when.contains(&it.at));
        let (mut own, mut sum) = (0.0, 0.0);
        for it in answered {
            sum += 1.0;
            own += f64::from(u8::from(it.actor == actor));
        }
        own / sum
    }

    /// Requests a second that were sent to a target, over a time.
    pub fn rate(&self, name: &str, when: Range<f64>) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let asked = self.asked(name, when.clone()) as f64;
        asked / (when.end - when.start)
    }

    /// The most requests that a target had under way in a time.
    pub fn peak(&self, name: &str, when: Range<f64>) -> u32 {
        let (actor, mut before) = (self.number(name), 0);
        let mut most = 0;
        for step in self.steps.iter().filter(|step| step.actor == actor) {
            if step.at < when.start {
                before = step.busy;
            } else if step.at < when.end {
                most = most.max(step.busy);
            }
        }
        most.max(before)
    }

    /// How many requests a target had under way, on average over a time.
    pub fn level(&self, name: &str, when: Range<f64>) -> f64 {
        let (actor, mut last) = (self.number(name), (when.start, 0));
        let mut sum = 0.0;
        for step in self.steps.iter().filter(|step| step.actor == actor) {
            if step.at >= when.end {
                break;
            }
            let at = step.at.max(when.start);
            sum += (at - last.0) * f64::from(last.1);
            last = (at, step.busy);
        }
        sum += (when.end - last.0) * f64::from(last.1);
        sum / (when.end - when.start)
    }

    /// How long requests to a target waited for their first content, on average over a time.
    pub fn mean(&self, name: &str, when: Range<f64>) -> f64 {
        let actor = self.number(name);
        let all = self
            .tries
            .iter()
            .filter(|it| it.actor == actor && when.contains(&it.at));
        let (sum, count) = all
            .filter_map(|it| it.waited)
            .fold((0.0, 0.0_f64), |(sum, count), waited| {
                (sum + waited, count + 1.0)
            });
        sum / count.max(1.0)
    }

    /// How many a second came that belong together.
    pub fn came(&self, group: usize, when: Range<f64>) -> f64 {
        let mut all = 0.0;
        for it in self.tries.iter().filter(|it| when.contains(&it.at)) {
            all += f64::from(u8::from(it.group == group));
        }
        all / (when.end - when.start)
    }

    /// Within which time this part of the requests of a time had its first content.
    pub fn waited(&self, part: f64, when: Range<f64>) -> f64 {
        let all = self.tries.iter().filter(|it| when.contains(&it.at));
        let mut waits: Vec<f64> = all.filter_map(|it| it.waited).collect();
        waits.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "some thousands"
        )]
        let place = (waits.len() as f64 * part) as usize;
        waits[place.min(waits.len() - 1)]
    }

    /// For which part of a time one of these had so many more requests under way than another of them.
    pub fn apart(&self, names: &[&str], more: u32, when: Range<f64>) -> f64 {
        let mut busy = vec![0; self.names.len()];
        let actors: Vec<usize> = names.iter().map(|name| self.number(name)).collect();
        let (mut last, mut sum) = (when.start, 0.0);
        let steps = self.steps.iter().filter(|step| step.at < when.end);
        let ends = steps.map(|step| (step.at, Some(step)));
        for (at, step) in ends.chain([(when.end, None)]) {
            let at = at.max(when.start);
            let all = actors.iter().map(|actor| busy[*actor]);
            if all.clone().max() >= all.min().map(|least: u32| least + more) {
                sum += at - last;
            }
            last = at;
            if let Some(step) = step {
                busy[step.actor] = step.busy;
            }
        }
        sum / (when.end - when.start)
    }

    /// When a target answered again, after a time.
    pub fn back(&self, name: &str, after: f64) -> f64 {
        let actor = self.number(name);
        let mut all = self.tries.iter();
        let first = all.find(|it| it.actor == actor && it.at >= after && it.waited.is_some());
        first.unwrap().at
    }
}
