//! A world in virtual time: providers that are as slow, as full and as broken as a test says, and requests that come by
//! chance.
//!
//! Who is asked is up to the gateway's own code: a configuration is compiled, a body scanned, a route walked, and the health of
//! each target told what came of it, as `upstream::attempt` does. Only sockets and clocks are left out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use tollgate::cli::Loaded;
use tollgate::config::load::Source;
use tollgate::config::secret::Environment;
use tollgate::envelope::Envelope;
use tollgate::gateway::Gateway;
use tollgate::ledger::Ledger;
use tollgate::protocol::Endpoint;
use tollgate::route::health::{Blame, Trial};
use tollgate::route::{Asks, Resort, Route, Target, Walk};
use tollgate::telemetry::Telemetry;
use tollgate::telemetry::metrics::Metrics;

use crate::dice::Dice;
use crate::log::{Log, Step, Try, Turn};

/// How an actor fails.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It says 500 a moment later.
    Fails,
    /// Nobody listens.
    Unreachable,
}

/// A number that changes over time.
type Over = Box<dyn Fn(f64) -> f64>;
/// What clients say over time.
type Talk = Box<dyn FnMut(f64, &mut Dice) -> Words>;

/// A model at a provider, as it behaves.
pub struct Actor {
    /// `provider/model`.
    name: String,
    /// What its entry among the targets says further.
    says: String,
    /// How many requests it works at; more of them wait.
    slots: usize,
    /// From the beginning of its work to the first content, in seconds.
    first: Over,
    /// From there to the end.
    rest: f64,
    /// Of this part of its answers the first content takes ten times as long.
    hiccups: f64,
    faults: Vec<(Range<f64>, Fault)>,
    /// Of its provider, if it is not the usual one.
    cooldown: Option<&'static str>,
}

impl Actor {
    /// It works at as much as comes, and an answer takes a quarter of a second, its first content 100 ms.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            says: String::new(),
            slots: usize::MAX,
            first: Box::new(|_| 0.1),
            rest: 0.15,
            hiccups: 0.0,
            faults: Vec::new(),
            cooldown: None,
        }
    }

    /// With more in its entry: `weight = 3`.
    pub fn says(mut self, more: &str) -> Self {
        self.says = more.into();
        self
    }

    /// And with this, too.
    pub fn more(mut self, more: &str) -> Self {
        self.says = format!("{}, {more}", self.says);
        self
    }

    /// Its first content takes so long, in seconds, and the rest half as long again.
    pub fn takes(mut self, seconds: f64) -> Self {
        self.rest = 1.5 * seconds;
        self.takes_over_time(move |_| seconds)
    }

    /// Its first content takes so long at a time.
    pub fn takes_over_time(mut self, first: impl Fn(f64) -> f64 + 'static) -> Self {
        self.first = Box::new(first);
        self
    }

    /// It works at so many at once.
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots;
        self
    }

    /// Now and then an answer takes ten times as long.
    pub fn hiccups(mut self, part: f64) -> Self {
        self.hiccups = part;
        self
    }

    /// It says 500 for a while.
    pub fn fails(mut self, when: Range<f64>) -> Self {
        self.faults.push((when, Fault::Fails));
        self
    }

    /// It cannot be reached for a while.
    pub fn away(mut self, when: Range<f64>) -> Self {
        self.faults.push((when, Fault::Unreachable));
        self
    }

    /// It rests until somebody is [sent there](World::probes).
    pub fn rests_long(mut self) -> Self {
        self.cooldown = Some("10m");
        self
    }

    /// It does not rest, however often it fails.
    pub fn never_rests(mut self) -> Self {
        self.cooldown = Some("0s");
        self
    }

    fn fault(&self, now: f64) -> Option<Fault> {
        let mut all = self.faults.iter();
        let found = all.find(|(when, _)| when.contains(&now));
        found.map(|(_, fault)| *fault)
    }
}

/// What a client asks, and with what it belongs together, for those who look at the log.
#[derive(Clone)]
pub struct Words {
    pub group: usize,
    pub body: String,
    pub headers: HeaderMap,
}

impl Words {
    /// A chat of no importance.
    pub fn plain() -> Self {
        Self::of(
            0,
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#,
        )
    }

    /// Any body.
    pub fn of(group: usize, body: &str) -> Self {
        Self {
            group,
            body: body.into(),
            headers: HeaderMap::new(),
        }
    }
}

/// What happens at a time.
enum Event {
    /// A request comes.
    Comes,
    /// A request's first content should have come.
    Late(u64),
    /// The first content of a request's answer.
    Begins(u64),
    Ends(u64),
    Fails(u64, Fault),
    /// Another configuration.
    Changes(String),
    /// Somebody is sent to a target though it rests.
    Probes(String),
}

/// A request under way at a target. One that is hedged is under way twice.
struct Request {
    id: u64,
    /// Of both the same.
    asked: u64,
    group: usize,
    came: f64,
    walk: Walk<'static>,
    route: &'static Route,
    /// How many targets were asked.
    tries: u32,
    at: Option<At>,
    /// The same request at another target.
    beside: Option<u64>,
}

/// Where it is.
struct At {
    target: &'static Arc<Target>,
    trial: Trial,
    entry: usize,
    /// The actor works at it.
    is_worked_at: bool,
    /// It has content.
    has_begun: bool,
}

/// What the actors have to do.
#[derive(Default)]
struct Desk {
    working: usize,
    waiting: VecDeque<u64>,
}

/// All of it.
pub struct World {
    gateway: Arc<Gateway>,
    /// Its clock stands still: what the gateway takes from it is the start.
    clock: Runtime,
    start: Instant,
    route: &'static Route,
    actors: HashMap<String, Actor>,
    rate: Over,
    words: Talk,
    dice: Dice,
    /// In microseconds since the start.
    now: u64,
    due: BTreeMap<(u64, u64), Event>,
    count: u64,
    desks: HashMap<String, Desk>,
    requests: HashMap<u64, Request>,
    log: Log,
}

impl World {
    /// A model `m` with such lines of its own, and all these targets.
    pub fn new(model: &str, actors: Vec<Actor>) -> Self {
        let clock = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let clock = clock.unwrap();
        let names = actors.iter().map(|actor| actor.name.clone()).collect();
        let loaded = read(&configuration(model, &actors));
        let (gateway, start) = {
            let _guard = clock.enter();
            let telemetry = Telemetry::new(Metrics::new(), None);
            let (ledger, wall) = (Ledger::unopened(), Box::new(|| SystemTime::UNIX_EPOCH));
            let surroundings = loaded.surroundings();
            let made = Gateway::new(&loaded.config, telemetry, ledger, surroundings, wall);
            let gateway = made.unwrap_or_else(|found| panic!("{}", loaded.report(found)));
            (gateway, Instant::now())
        };
        Self {
            route: route(&gateway),
            log: Log::of(names),
            gateway,
            clock,
            start,
            actors: actors
                .into_iter()
                .map(|actor| (actor.name.clone(), actor))
                .collect(),
            rate: Box::new(|_| 100.0),
            words: Box::new(|_, _| Words::plain()),
            dice: Dice::of(1),
            now: 0,
            due: BTreeMap::new(),
            count: 0,
            desks: HashMap::new(),
            requests: HashMap::new(),
        }
    }

    /// So many requests a second come; 100, if nothing is said.
    pub fn rate(self, rate: f64) -> Self {
        self.rate_over_time(move |_| rate)
    }

    /// So many requests a second come at a time.
    pub fn rate_over_time(mut self, rate: impl Fn(f64) -> f64 + 'static) -> Self {
        self.rate = Box::new(rate);
        self
    }

    /// What they say, at a time.
    pub fn words(mut self, words: impl FnMut(f64, &mut Dice) -> Words + 'static) -> Self {
        self.words = Box::new(words);
        self
    }

    /// By another chance.
    pub fn seed(mut self, seed: u64) -> Self {
        self.dice = Dice::of(seed);
        self
    }

    /// In which order a request would be sent to those that do not rest.
    pub fn order(&self, words: &Words, seed: u64) -> Vec<&'static str> {
        let mut walk = self.walk(words, seed);
        let next = || walk.next(self.start).map(|target| &*target.name);
        std::iter::from_fn(next).collect()
    }

    fn walk(&self, words: &Words, seed: u64) -> Walk<'static> {
        let body = Bytes::copy_from_slice(words.body.as_bytes());
        self.route.walk(&Asks {
            endpoint: Endpoint::ChatCompletions,
            envelope: &Envelope::scan(body, |_| false).unwrap(),
            headers: &words.headers,
            bounds: None,
            output_cap: self.gateway.plan().spending.output_cap,
            seed,
        })
    }

    /// At that time the model has other lines and these targets, in this order.
    pub fn changes(mut self, at: f64, model: &str, names: &[&str]) -> Self {
        let text = configuration(model, names.iter().map(|name| &self.actors[*name]));
        self.plans(at, Event::Changes(text));
        self
    }

    /// At that time somebody is sent to a target that rests, as when there is nobody else: the length of a rest is left to
    /// chance, and what is drawn is not.
    pub fn probes(mut self, at: f64, name: &str) -> Self {
        self.plans(at, Event::Probes(name.into()));
        self
    }

    /// Lets it go on for so many seconds, and tells what happened.
    pub fn run(mut self, seconds: f64) -> Log {
        self.plans(0.0, Event::Comes);
        let end = micros(seconds);
        while let Some(((at, _), event)) = self.due.pop_first() {
            if at >= end {
                break;
            }
            self.now = at;
            match event {
                Event::Comes => self.comes(),
                Event::Late(id) => self.late(id),
                Event::Begins(id) => self.begins(id),
                Event::Ends(id) => self.ends(id),
                Event::Fails(id, fault) => self.fails(id, fault),
                Event::Changes(text) => self.apply(&text),
                Event::Probes(name) => self.probe(&name),
            }
        }
        self.log.end = seconds;
        self.log
    }

    fn plans(&mut self, at: f64, event: Event) {
        self.count += 1;
        self.due.insert((micros(at), self.count), event);
    }

    fn after(&mut self, seconds: f64, event: Event) {
        self.plans(self.seconds() + seconds, event);
    }

    fn seconds(&self) -> f64 {
        Duration::from_micros(self.now).as_secs_f64()
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn apply(&mut self, text: &str) {
        let loaded = read(text);
        let _guard = self.clock.enter();
        let applied = self.gateway.apply(&loaded.config, loaded.surroundings());
        applied.unwrap_or_else(|found| panic!("{}", loaded.report(found)));
        self.route = route(&self.gateway);
    }

    fn comes(&mut self) {
        let now = self.seconds();
        let rate = (self.rate)(now);
        let wait = self.dice.wait(rate);
        self.after(wait, Event::Comes);
        let request = self.request();
        self.goes_on(request);
    }

    fn request(&mut self) -> Request {
        let came = self.seconds();
        let words = (self.words)(came, &mut self.dice);
        let seed = self.dice.next();
        let walk = self.walk(&words, seed);
        self.count += 1;
        Request {
            id: self.count,
            asked: self.count,
            group: words.group,
            came,
            walk,
            route: self.route,
            tries: 0,
            at: None,
            beside: None,
        }
    }

    fn probe(&mut self, name: &str) {
        let mut request = self.request();
        request.walk.ends();
        let mut targets = request.route.targets.iter();
        let target = targets.find(|target| *target.name == *name).unwrap();
        assert!(
            target.health.look(self.instant()).is_err(),
            "{name} does not rest"
        );
        self.enters(request, target, Resort::Last);
    }

    /// A request goes to the next target.
    fn goes_on(&mut self, mut request: Request) {
        let now = self.instant();
        match request.walk.next(now) {
            Some(target) => self.enters(request, target, Resort::Other),
            None if request.walk.is_fresh() => {
                request.walk.ends();
                match request.route.last_resort(now) {
                    Some(target) => self.enters(request, target, Resort::Last),
                    None => self.log.lost.push(self.seconds()),
                }
            }
            None => self.log.lost.push(self.seconds()),
        }
    }

    fn enters(&mut self, mut request: Request, target: &'static Arc<Target>, resort: Resort) {
        let now = self.instant();
        let cooldown = target.provider.cooldown;
        let Ok(trial) = target.health.enter(cooldown, resort, now) else {
            return self.goes_on(request);
        };
        request.tries += 1;
        if request.tries > 1 {
            return self.asks(request, target, trial, Turn::Next);
        }
        // As in `upstream::hedge`, where the first try of a request begins.
        let hedge = request.route.hedge.as_deref();
        if let Some(late) = hedge.and_then(|hedge| hedge.after(target)) {
            self.after(late.as_secs_f64(), Event::Late(request.id));
        }
        self.asks(request, target, trial, Turn::First);
    }

    /// A request's first target takes too long: the next one is asked, too.
    fn late(&mut self, id: u64) {
        let now = self.instant();
        let is_waiting = |it: &&mut Request| it.tries == 1 && !it.at.as_ref().unwrap().has_begun;
        let Some(first) = self.requests.get_mut(&id).filter(is_waiting) else {
            return;
        };
        let share = &first.route.hedge.as_deref().unwrap().share;
        let mut ahead = first.walk.clone();
        let Some(target) = ahead.next(now).filter(|_| share.take()) else {
            return;
        };
        let cooldown = target.provider.cooldown;
        let Ok(trial) = target.health.enter(cooldown, Resort::Other, now) else {
            return share.give_back();
        };
        self.count += 1;
        first.walk = ahead.clone();
        first.tries = 2;
        first.beside = Some(self.count);
        let second = Request {
            id: self.count,
            walk: ahead,
            at: None,
            beside: Some(id),
            ..*first
        };
        self.asks(second, target, trial, Turn::Beside);
    }

    fn asks(
        &mut self,
        mut request: Request,
        target: &'static Arc<Target>,
        trial: Trial,
        turn: Turn,
    ) {
        let (id, name) = (request.id, &*target.name);
        let entry = self.log.enters(Try {
            at: self.seconds(),
            actor: self.log.number(name),
            request: request.asked,
            turn,
            group: request.group,
            waited: None,
        });
        request.at = Some(At {
            target,
            trial,
            entry,
            is_worked_at: false,
            has_begun: false,
        });
        self.requests.insert(id, request);
        self.steps(target);
        match self.actors[name].fault(self.seconds()) {
            Some(fault @ Fault::Fails) => self.after(0.02, Event::Fails(id, fault)),
            Some(fault @ Fault::Unreachable) => self.after(0.005, Event::Fails(id, fault)),
            None => {
                self.desk(name).waiting.push_back(id);
                self.works(name);
            }
        }
    }

    fn desk(&mut self, name: &str) -> &mut Desk {
        self.desks.entry(name.into()).or_default()
    }

    /// An actor takes the next request that waits, if it has time.
    fn works(&mut self, name: &str) {
        let slots = self.actors[name].slots;
        let desk = self.desk(name);
        if desk.working == slots {
            return;
        }
        if let Some(id) = desk.waiting.pop_front() {
            desk.working += 1;
            let at = self.requests.get_mut(&id).unwrap().at.as_mut();
            at.unwrap().is_worked_at = true;
            let now = self.seconds();
            let actor = &self.actors[name];
            let mut first = (actor.first)(now) * self.dice.about();
            if actor.hiccups > 0.0 && self.dice.part() < actor.hiccups {
                first *= 10.0;
            }
            let rest = actor.rest * self.dice.about();
            self.after(first, Event::Begins(id));
            self.after(first + rest, Event::Ends(id));
        }
    }

    fn begins(&mut self, id: u64) {
        let (now, seconds) = (self.instant(), self.seconds());
        // If it is not there it was outrun.
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let at = request.at.as_mut().unwrap();
        at.trial.begins(now);
        at.has_begun = true;
        self.log.tries[at.entry].waited = Some(seconds - request.came);
        if let Some(other) = request.beside.take() {
            self.stops(other);
        }
    }

    /// A request is stopped, as another target was faster.
    fn stops(&mut self, id: u64) {
        let now = self.instant();
        let mut at = self.requests.remove(&id).unwrap().at.unwrap();
        at.trial.is_outrun(now);
        drop(at.trial);
        self.steps(at.target);
        let name = &at.target.name;
        if at.is_worked_at {
            self.desk(name).working -= 1;
            self.works(name);
        } else {
            self.desk(name).waiting.retain(|waits| *waits != id);
        }
    }

    fn ends(&mut self, id: u64) {
        let now = self.instant();
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let mut at = request.at.unwrap();
        at.trial.answered(now);
        drop(at.trial);
        self.steps(at.target);
        self.desk(&at.target.name).working -= 1;
        self.works(&at.target.name);
    }

    fn fails(&mut self, id: u64, fault: Fault) {
        let now = self.instant();
        let Some(mut request) = self.requests.remove(&id) else {
            return;
        };
        let mut at = request.at.take().unwrap();
        at.trial.failed(
            match fault {
                Fault::Fails => Blame::Model,
                Fault::Unreachable => Blame::Endpoint,
            },
            now,
        );
        drop(at.trial);
        self.steps(at.target);
        match request.beside.and_then(|id| self.requests.get_mut(&id)) {
            // That may still answer, and if not, goes on.
            Some(other) => other.beside = None,
            None => self.goes_on(request),
        }
    }

    /// How many requests a target has under way has changed.
    fn steps(&mut self, target: &Target) {
        let step = Step {
            at: self.seconds(),
            actor: self.log.number(&target.name),
            busy: target.health.pace().busy(),
        };
        self.log.steps.push(step);
    }
}

fn micros(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_micros()).unwrap()
}

/// The way to the model, for as long as the test goes on: who walks it keeps the plan that it began with.
fn route(gateway: &Gateway) -> &'static Route {
    let route = gateway.plan().route("m").unwrap();
    assert!(route.skipped.is_empty(), "{:?}", route.skipped);
    Box::leak(Box::new(route))
}

fn configuration<'a>(model: &str, actors: impl IntoIterator<Item = &'a Actor>) -> String {
    let mut text = format!("[models.m]\n{model}\ntargets = [\n");
    let mut providers = BTreeMap::new();
    for actor in actors {
        let comma = if actor.says.is_empty() { "" } else { ", " };
        let _ = writeln!(text, "  {{ to = {:?}{comma}{} }},", actor.name, actor.says);
        providers.insert(actor.name.split_once('/').unwrap().0, actor.cooldown);
    }
    text += "]\n";
    for (provider, cooldown) in providers {
        let lines = "preset = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:9/v1\"";
        let _ = writeln!(text, "[providers.{provider}]\n{lines}\nfree = false");
        if let Some(cooldown) = cooldown {
            let _ = writeln!(text, "cooldown = {cooldown:?}");
        }
    }
    text
}

fn read(text: &str) -> Loaded {
    let source = Source::parse("gateway.toml".into(), PathBuf::new(), text);
    let source = source.unwrap_or_else(|flaws| panic!("{flaws}\n{text}"));
    let loaded = Loaded::read(source, Environment::default());
    assert!(
        loaded.flaws.is_empty(),
        "{}\n{text}",
        loaded.report(Vec::new())
    );
    loaded
}
