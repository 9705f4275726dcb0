//! Budgets cannot be overspent: shown through the whole gateway, with crowds, clocks that jump and limits that change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use tollgate::protocol::Endpoint;
use tollgate::usage::Money;

use crate::support::biller::{Bill, Biller, Bills, Case, Crowd, Does, PIECE, Seen};
use crate::support::books::{Books, Entry, by_hour};
use crate::support::money::{COST, budget, key, priced, question, streamed, strict};
use crate::support::services::{By, SERVICES, Service, Used, models};
use crate::support::{
    Act, Answer, DONE, FINISH, Gateway, Hands, Provider, USAGE, ask, chat, chat_stream, client,
    completion, delta, until,
};

fn configuration(biller: &Biller, limit: u64, more: &str) -> String {
    format!(
        "{}{}[ledger]\nsettle_wait = \"30s\"\n{more}",
        biller.providers(""),
        models(&["p", "q"], limit)
    )
}

/// The most that any request with this limit on its output may cost.
fn most_of_all(limit: u64) -> u64 {
    let bounds = SERVICES.iter().map(|service| service.bound(limit));
    bounds.max().unwrap()
}

/// What a refusal says that was left, in billionths.
fn left(refused: &Answer) -> u64 {
    let text = refused.text();
    let left = text.split(" has ").nth(1).unwrap().split(' ').next();
    Money::parse(left.unwrap()).unwrap().0
}

/// Compares an entry with what the provider billed for that try, if it has read it.
fn compare_one(row: &Entry, bill: Option<&Bill>, limit: u64) {
    let service = Service::of(&row.api, &row.model);
    let (bound, guess) = (service.bound(limit), service.guess(limit));
    let entered = Used {
        input: row.input,
        output: row.output,
        own: service.own(row.units),
    };
    let cost = match row.estimated && service.by == By::Most {
        // How much there was is not to be seen: all that was held.
        true => bound,
        false => service.cost(entered),
    };
    assert_eq!(row.cost, Some(cost), "{row:?}");
    assert!(cost <= bound, "more than was held: {row:?}");
    match bill.and_then(|bill| Some((bill, bill.used?))) {
        Some((bill, used)) if !row.estimated => {
            assert!(bill.told, "{row:?} {bill:?}");
            assert_eq!(entered, used, "{row:?}");
        }
        // Its input, what it takes besides, and what had passed: not more than was said.
        Some((bill, Used { output, .. })) => {
            let got = (entered.input, entered.own);
            assert_eq!(got, (guess.input, guess.own), "{row:?}");
            assert!(entered.output <= output, "{row:?} {bill:?}");
        }
        // It went out, and its client left before the provider had read it, or before its no was heard.
        None => {
            let got = (&*row.end, row.estimated, entered);
            assert_eq!(got, ("client_gone", true, guess), "{row:?}");
        }
    }
}

/// Compares each entry with what the provider billed for that try, and gives the entries of each request.
fn compare<'r>(rows: &'r [Entry], bills: &Bills, limit: u64) -> HashMap<&'r str, Vec<&'r Entry>> {
    let mut of_request: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for row in rows {
        let tries = bills.get(&row.request);
        let bill = tries.and_then(|tries| tries.get(&row.attempt));
        compare_one(row, bill, limit);
        of_request.entry(&row.request).or_default().push(row);
    }
    for (request, tries) in bills {
        let entered = of_request.get(&**request).map_or(&[][..], Vec::as_slice);
        for (attempt, bill) in tries {
            let billed = bill.used.map_or(0, |used| bill.service.cost(used));
            let bound = bill.service.bound(limit);
            assert!(billed <= bound, "more than was held: {request} {bill:?}");
            let times = entered.iter().filter(|row| row.attempt == *attempt).count();
            let is_once = match bill.used {
                Some(_) => times == 1,
                None => times <= 1,
            };
            assert!(is_once, "{request} {attempt} {bill:?} {entered:?}");
        }
    }
    of_request
}

/// All that the provider has billed, whether it told that or not.
fn billed(bills: &Bills) -> u64 {
    let tries = bills.values().flat_map(BTreeMap::values);
    let costs = tries.filter_map(|bill| Some(bill.service.cost(bill.used?)));
    costs.sum()
}

/// Compares what a client saw with the entries of its request.
fn compare_seen(case: &Case, seen: &Seen, entries: &HashMap<&str, Vec<&Entry>>) {
    let of = |request: &str| entries.get(request).map_or(&[][..], Vec::as_slice);
    let (service, stream) = (case.service, case.stream);
    let answer = match seen {
        Seen::Whole(answer) => answer,
        // It pays at least for what it has seen, unless it left before it had heard that it was answered.
        Seen::Left(Some(request), pieces) if stream && *pieces > 0 => {
            let last = of(request).last().unwrap();
            let is_paid = last.output >= *pieces || !service.shows_tokens();
            assert!(is_paid, "{last:?} {case:?} {pieces}");
            return;
        }
        Seen::Left(..) | Seen::Broken => return,
    };
    let entries = of(answer.header("x-request-id").unwrap());
    let text = answer.text();
    if answer.status == 200 && case.is_whole(&text) {
        let last = entries.last().unwrap();
        let got = (&*last.end, last.estimated);
        assert_eq!(got, ("complete", !service.tells(stream)), "{case:?}");
        let told = answer.header("x-tollgate-cost-usd");
        // Sound goes out before anybody knows.
        let is_told = !stream && service.endpoint != Endpoint::Speech;
        assert!(told.is_some() || !is_told, "{case:?}");
        if let Some(told) = told {
            let cost = Money(entries.iter().filter_map(|row| row.cost).sum());
            assert_eq!(told, cost.to_string(), "{case:?}");
        }
    } else if answer.status == 200 {
        assert_eq!(case.does, Does::Cuts, "{text}");
        let last = entries.last().unwrap();
        let seen = match service.shows_tokens() {
            true => text.matches(PIECE).count() as u64,
            false => 0,
        };
        let got = (&*last.end, last.estimated, last.output);
        assert_eq!(got, ("truncated", true, seen), "{case:?}");
    } else {
        assert_ne!(answer.status, 503, "{text}");
    }
}

/// How often requests of each service ended in one of these ways.
fn times(rows: &[Entry], ends: &[&str]) -> [usize; SERVICES.len()] {
    SERVICES.map(|service| {
        let is_of = |row: &&Entry| Service::of(&row.api, &row.model) == service;
        let ended = rows.iter().filter(is_of);
        ended.filter(|row| ends.contains(&&*row.end)).count()
    })
}

#[test]
fn every_endpoint_that_asks_a_model_is_proven() {
    for endpoint in Endpoint::asking() {
        let is_there = SERVICES.iter().any(|it| it.endpoint == endpoint);
        assert!(is_there, "{}", endpoint.name());
    }
}

/// Alone, each is let in as long as it fits, and no longer: the dearest first. Gives what is left then.
async fn asks_alone(gateway: &Gateway, limit: u64) -> u64 {
    let mut last = 0;
    let mut services = SERVICES;
    services.sort_by_key(|service| Reverse(service.bound(limit)));
    for service in services {
        let is_plain = |case: &Case| case.service == service && case.does == Does::Answers;
        let alone = (10_000..20_000).map(Case::of).find(is_plain).unwrap();
        last = loop {
            let answer = alone.ask(gateway.address, limit).await;
            if answer.status != 200 {
                break left(&answer);
            }
        };
        assert!(last < service.bound(limit), "{service:?} {last}");
    }
    last
}

/// Ten thousand requests, of every endpoint in turn, for a dollar that suffices for some of them.
#[tokio::test]
async fn ten_thousand_requests_of_which_many_are_left_spend_no_more_than_a_dollar() {
    const LIMIT: u64 = 50;
    const BUDGET: u64 = 1_000_000_000;
    // As many as fit, however little each of them gives back.
    const FIRST: usize = 1_000;
    // More than fit ask at once.
    const CROWD: usize = 2_000;
    let bounds = (0..).map(|number| Case::of(number).service.bound(LIMIT));
    assert!(bounds.clone().take(FIRST).sum::<u64>() < BUDGET);
    assert!(bounds.take(CROWD).sum::<u64>() > BUDGET);
    let biller = Biller::new().await;
    let ann = key("ann", &strict("1"));
    let gateway = Gateway::start(&configuration(&biller, LIMIT, &ann)).await;
    let crowd = Crowd::of(CROWD, gateway.address, "sk-ann", LIMIT);
    let mut all = crowd.ask(0..FIRST as u64).await;
    for (case, seen) in &all {
        if let Seen::Whole(answer) = seen {
            assert_ne!(answer.status, 429, "{case:?}: {}", answer.text());
        }
    }
    all.extend(crowd.ask(FIRST as u64..10_000).await);
    let books = Books::of(&gateway).await;
    let (rows, bills) = (books.rows(), biller.bills());
    let entries = compare(&rows, &bills, LIMIT);
    let mut refused = 0;
    for (case, seen) in &all {
        compare_seen(case, seen, &entries);
        if let Seen::Whole(answer) = seen
            && answer.status == 429
        {
            assert_eq!(answer.code(), "budget_exceeded");
            let bound = case.service.bound(LIMIT);
            assert!(left(answer) < bound, "{}", answer.text());
            refused += 1;
        }
    }
    let of_end = |end: &str| rows.iter().filter(|row| row.end == end).count();
    let counts = ["complete", "client_gone", "truncated", "reset"].map(of_end);
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    for (ends, least) in [
        (&["complete"][..], 50),
        (&["client_gone"], 0),
        (&["truncated", "reset"], 5),
    ] {
        let times = times(&rows, ends);
        assert!(
            times.iter().all(|count| *count > least),
            "{ends:?} {times:?}"
        );
    }
    assert!(refused > 1_000, "{refused}");
    let last = asks_alone(&gateway, LIMIT).await;
    let books = Books::of(&gateway).await;
    let sum: u64 = books.rows().iter().filter_map(|row| row.cost).sum();
    for (scope, name) in [(0, "ann"), (3, "total")] {
        assert_eq!(books.spent(scope, name).values().sum::<u64>(), sum);
    }
    // Guesses are, on the whole, no less than what was billed.
    let bills = biller.bills();
    assert!(sum <= BUDGET && billed(&bills) <= BUDGET);
    assert_eq!(last, BUDGET - sum);
    assert!(SERVICES.iter().all(|it| BUDGET - sum < it.bound(LIMIT)));
    assert!(books.is_whole());
}

/// Limits of a key, its team and all callers, in millionths of a dollar.
type Limits = [u64; 3];

/// Whose they are, and how long their windows are.
const SCOPES: [(u8, &str, &str); 3] = [(0, "ann", "hour"), (1, "t", "day"), (3, "total", "week")];

fn limited(biller: &Biller, limits: Limits, more: &str) -> String {
    let budgets = limits.iter().zip(SCOPES).map(|(limit, (_, _, per))| {
        let (dollars, part) = (limit / 1_000_000, limit % 1_000_000);
        format!("budget = {{ usd = {dollars}.{part:06}, per = \"{per}\" }}\n")
    });
    let budgets: Vec<String> = budgets.collect();
    let ann = key("ann", &format!("team = \"t\"\n{}", budgets[0]));
    let rest = format!("[teams.t]\n{}[total]\n{}{more}", budgets[1], budgets[2]);
    configuration(biller, MOST, &(ann + &rest))
}

const HOUR: u64 = 3_600;
/// Sunday, 2024-03-03, 22:00, in hours: two later a day ends, and a week.
const SUNDAY: u64 = 1_709_503_200 / HOUR;

/// The first hour of the window in which an hour lies; of the weeks only this one and the next are told apart.
fn window(per: &str, hour: u64) -> u64 {
    match per {
        "hour" => hour,
        "day" => hour / 24 * 24,
        _ if hour < SUNDAY + 2 => 0,
        _ => SUNDAY + 2,
    }
}

/// What happens while a crowd asks.
struct Course<'t> {
    biller: &'t Biller,
    gateway: &'t Gateway,
    crowd: &'t Crowd,
    hands: &'t Hands,
    hour: u64,
    limits: Limits,
    /// The largest limit that was in force in each window, in billionths.
    most: BTreeMap<(u8, u64), u64>,
}

/// How many ask at once, and for how much output at most.
const AT_ONCE: usize = 300;
const MOST: u64 = 200;

impl Course<'_> {
    /// Waits until all that were under way have ended, and one more: that one has seen what holds now.
    async fn goes_on(&self) {
        let before = self.crowd.ended();
        let has_gone_on = || self.crowd.ended() > before + AT_ONCE;
        until("the crowd has gone on", has_gone_on).await;
    }

    /// Waits until a budget is as good as spent: for as long as the crowd goes on, however slow the machine is.
    async fn is_full(&self) {
        let ledger = &self.gateway.running.as_ref().unwrap().gateway.state.ledger;
        let is_full = || {
            let accounts = ledger.observe().accounts;
            let mut full = accounts
                .iter()
                .filter(|it| it.spent.0 + most_of_all(MOST) > it.budget.limit.0);
            full.next().is_some()
        };
        for _ in 0..1_000 {
            if is_full() {
                return;
            }
            self.goes_on().await;
        }
        panic!("{} requests spend no budget", 1_000 * AT_ONCE);
    }

    fn note(&mut self) {
        for ((scope, _, per), limit) in SCOPES.iter().zip(self.limits) {
            let most = self.most.entry((*scope, window(per, self.hour)));
            let most = most.or_default();
            *most = (*most).max(limit * 1_000);
        }
    }

    /// The next hour begins.
    async fn turns(&mut self) {
        self.hour += 1;
        self.hands.move_to(self.hour * HOUR + 59);
        self.note();
        self.goes_on().await;
    }

    /// Other limits are put in force, or something else is changed.
    async fn changes(&mut self, limits: Limits, more: &str) {
        self.limits = limits;
        self.note();
        let text = limited(self.biller, limits, more);
        self.gateway.apply(&text).unwrap();
        self.goes_on().await;
    }
}

/// In each window no more is spent than the largest limit that was in force in it, and what was spent is the sum of its
/// entries.
#[tokio::test]
async fn limits_hold_while_windows_turn_and_limits_change() {
    let biller = Biller::new().await;
    let limits: Limits = [40_000, 90_000, 120_000];
    let hands = Hands::at(SUNDAY * HOUR);
    let gateway = Gateway::by(&hands, "", &limited(&biller, limits, "")).await;
    let crowd = Crowd::of(AT_ONCE, gateway.address, "sk-ann", MOST);
    let mut course = Course {
        biller: &biller,
        gateway: &gateway,
        crowd: &crowd,
        hands: &hands,
        hour: SUNDAY,
        limits,
        most: BTreeMap::new(),
    };
    let other = "[models.other]\ntargets = [\"p/other\"]\n[keys.bob]\nkey = \"sk-bob\"\n";
    let happens = async {
        course.note();
        course.goes_on().await;
        course.changes([60_000, 90_000, 120_000], "").await;
        course.changes([60_000, 90_000, 120_000], other).await;
        course.is_full().await;
        course.turns().await;
        course.changes([20_000, 90_000, 120_000], "").await;
        course.changes([20_000, 60_000, 120_000], other).await;
        // A day and a week end.
        course.turns().await;
        course.changes([50_000, 60_000, 30_000], "").await;
        course.is_full().await;
        course.changes([50_000, 200_000, 300_000], "").await;
        course.is_full().await;
        course.turns().await;
        course.turns().await;
        course.is_full().await;
        course.changes([10_000, 100_000, 90_000], other).await;
        crowd.stop();
        course.most
    };
    let (all, most) = tokio::join!(crowd.ask(0..1_000_000), happens);
    assert!(all.len() > 3_000);
    let books = Books::of(&gateway).await;
    let rows = books.rows();
    let entries = compare(&rows, &biller.bills(), MOST);
    for (case, seen) in &all {
        compare_seen(case, seen, &entries);
    }
    let times = times(&rows, &["complete"]);
    assert!(times.iter().all(|count| *count > 0), "{times:?}");
    let mut full = 0;
    for (scope, name, per) in SCOPES {
        let spent = books.spent(scope, name);
        assert_eq!(spent, by_hour(&rows), "{name}");
        let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
        for (hour, amount) in spent {
            *windows.entry(window(per, hour)).or_default() += amount;
        }
        for (start, spent) in windows {
            let most = most[&(scope, start)];
            assert!(spent <= most, "{name} {start}: {spent} of {most}");
            full += usize::from(spent + most_of_all(MOST) > most);
        }
    }
    assert!(full > 2, "limits are reached in {full} windows");
    let line = r#"tollgate_reloads_total{outcome="applied"}"#;
    assert_eq!(gateway.metric(line), 7.0);
    assert!(books.is_whole());
}

/// Thursday, 2024-02-29, 13:00, in hours.
const THURSDAY: u64 = 474_781;
const DAY: u64 = 24;
const YEAR: u64 = 366 * DAY;

#[tokio::test]
async fn a_clock_that_jumps_opens_nothing_and_loses_nothing() {
    let (gate, gated) = tokio::sync::watch::channel(());
    let (first, others) = (
        vec![delta("a")],
        vec![FINISH.into(), USAGE.into(), DONE.into()],
    );
    let provider = Provider::new([
        Act::Gated(first.clone(), gated.clone(), others.clone()),
        Act::Gated(first, gated, others),
        Act::json(completion("hello")),
    ])
    .await;
    let ann = key("ann", &strict("1.2").replace("total", "day"));
    let hands = Hands::at(THURSDAY * HOUR);
    let move_to = |hour: u64| hands.move_to(hour * HOUR + 7);
    let gateway = Gateway::by(&hands, "", &priced(&provider, &ann)).await;
    let open = async || {
        let body = streamed(&question(10));
        let mut coming =
            client::open(gateway.address, "/v1/chat/completions", "sk-ann", body).await;
        assert_eq!(coming.status, 200);
        coming.piece().await.unwrap().unwrap();
        coming
    };
    let spend_all = async || {
        let mut times = 0;
        while ask(&gateway, question(10)).await.status == 200 {
            times += 1;
        }
        times
    };
    // Two are under way, each with 0.45 dollars set aside.
    let across = [open().await, open().await];
    assert_eq!(ask(&gateway, question(10)).await.status, 429);
    for hour in [THURSDAY - 1, THURSDAY - DAY, THURSDAY - 10 * YEAR, 0] {
        move_to(hour);
        let refused = ask(&gateway, question(10)).await;
        assert_eq!(refused.code(), "budget_exceeded", "{hour}");
    }
    // A year later it is another day's money; and it stays that when the clock comes back.
    move_to(THURSDAY + YEAR);
    assert_eq!(ask(&gateway, question(10)).await.status, 200);
    move_to(THURSDAY);
    assert_eq!(ask(&gateway, question(10)).await.status, 200);
    gate.send(()).unwrap();
    for coming in across {
        let (text, is_complete) = coming.rest().await;
        assert!(is_complete && String::from_utf8(text).unwrap().ends_with(DONE));
    }
    let later = 2 + spend_all().await;
    assert!((15..=32).contains(&later), "{later}");
    move_to(THURSDAY + YEAR);
    assert_eq!(
        spend_all().await,
        0,
        "the same day's money, and it is spent"
    );
    let books = Books::of(&gateway).await;
    let want = BTreeMap::from([(THURSDAY, 2 * COST), (THURSDAY + YEAR, later * COST)]);
    for (scope, name) in [(0, "ann"), (2, "p"), (3, "total")] {
        assert_eq!(books.spent(scope, name), want, "{name}");
    }
    let rows = books.rows();
    assert_eq!(by_hour(&rows), want);
    assert_eq!(rows.len() as u64, 2 + later);
    assert!(rows.iter().all(|row| row.end == "complete"));
}

#[tokio::test]
async fn a_key_ends_when_the_clock_on_the_wall_says_so() {
    let provider = Provider::new([Act::json(completion("hello"))]).await;
    let ann = key("ann", "expires = \"2024-03-01\"");
    let hands = Hands::at(THURSDAY * HOUR);
    let gateway = Gateway::by(&hands, "", &priced(&provider, &ann)).await;
    let midnight = (THURSDAY + 11) * HOUR;
    for (at, status) in [(midnight - 1, 200), (midnight, 401), (midnight - 1, 200)] {
        hands.move_to(at);
        assert_eq!(
            ask(&gateway, chat("fast")).await.status.as_u16(),
            status,
            "{at}"
        );
    }
}

/// What is kept over a power cut is in the file itself before an answer ends, whoever looks.
#[tokio::test]
async fn with_durability_power_an_answer_has_its_entry_in_the_file_before_it_ends() {
    let events = [delta("a"), FINISH.into(), USAGE.into(), DONE.into()];
    let (whole, streamed) = (Act::json(completion("hello")), Act::events(events));
    let acts = (0..10).flat_map(|_| [whole.clone(), streamed.clone()]);
    let provider = Provider::new(acts).await;
    let ann = key("ann", &budget("10"));
    let power = "[ledger]\ndurability = \"power\"\nsettle_wait = \"30s\"\n";
    let gateway = Gateway::start(&priced(&provider, &(ann + power))).await;
    let books = Books::open(gateway.folder());
    for n in 0..10 {
        for (nth, body) in [(1, question(10)), (2, chat_stream("fast"))] {
            let answer = ask(&gateway, body).await;
            let id = answer.header("x-request-id").unwrap();
            let rows = books.rows();
            assert_eq!(rows.len(), 2 * n + nth);
            let last = rows.last().unwrap();
            assert_eq!((&*last.request, last.cost), (id, Some(COST)));
            let spent: u64 = books.spent(0, "ann").values().sum();
            assert_eq!(spent, rows.len() as u64 * COST);
        }
    }
}
