//! Pictures of what happened: panels under each other, over the same time. As text that is always the same, and small.

use std::fmt::Write as _;
use std::ops::Range;

use crate::log::Log;

/// Named by what it looks like.
pub type Colour = &'static str;

pub const BLUE: Colour = "#4477aa";
pub const AMBER: Colour = "#e0a030";
pub const GREEN: Colour = "#3f9d6b";
pub const VIOLET: Colour = "#a4609f";
pub const GREY: Colour = "#8a8f98";

const WIDTH: f64 = 760.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 30.0;
/// Above the first panel: the title, and what each colour is.
const HEAD: f64 = 64.0;
/// Under each panel: its numbers of seconds.
const FOOT: f64 = 40.0;
const INK: Colour = "#24292f";
const PALE: Colour = "#59636e";

/// One thing over time: points at equal distances, from the beginning to the end.
pub struct Line {
    pub colour: Colour,
    pub points: Vec<f64>,
}

/// How a panel shows its lines.
pub enum Shape {
    /// On top of each other, filled.
    Stacked,
    /// Each for itself.
    Lines,
}

/// A part of the picture.
pub struct Panel {
    /// What is up, and its unit.
    pub title: &'static str,
    pub height: f64,
    /// What is at its top, and how far its numbers are apart.
    pub most: f64,
    pub step: f64,
    pub body: Body,
    /// Times of which something is to be said: a shade, and words above it.
    pub notes: Vec<(Range<f64>, &'static str)>,
}

/// What is in it.
pub enum Body {
    Over(Shape, Vec<Line>),
    /// Not over time: by name, and of each a bar of each colour, with its number above it.
    Bars(Vec<(&'static str, Vec<(Colour, f64)>)>),
    /// Rows of dots, each at a time, by colour.
    Dots {
        rows: usize,
        dots: Vec<(Colour, Vec<(f64, usize)>)>,
    },
}

/// All of it.
pub struct Picture {
    pub title: &'static str,
    pub legend: Vec<(Colour, &'static str)>,
    pub seconds: f64,
    /// Numbers of seconds are so far apart.
    pub tick: f64,
    /// What they are shown as where the picture begins.
    pub from: f64,
    pub panels: Vec<Panel>,
}

impl Picture {
    /// As SVG.
    pub fn svg(&self) -> String {
        let height: f64 = self
            .panels
            .iter()
            .map(|panel| panel.height + FOOT + 22.0)
            .sum();
        let height = HEAD + height;
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">
<title>{}</title>
<rect x="0.5" y="0.5" width="{}" height="{}" rx="8" fill="#ffffff" stroke="#d0d7de"/>
<text x="20" y="28" font-size="15" font-weight="600">{}</text>
"##,
            self.title,
            WIDTH - 1.0,
            height - 1.0,
            self.title,
        );
        self.legend(&mut svg);
        let mut top = HEAD + 22.0;
        for panel in &self.panels {
            self.panel(&mut svg, panel, top);
            top += panel.height + FOOT + 22.0;
        }
        svg += "</svg>\n";
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut x = 20.0;
        for (colour, text) in &self.legend {
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.0}" y="41" width="12" height="12" rx="2" fill="{colour}"/><text x="{:.0}" y="51">{text}</text>"#,
                x + 17.0
            );
            let letters = u32::try_from(text.chars().count()).unwrap();
            x += 17.0 + 6.4 * f64::from(letters) + 22.0;
        }
    }

    /// Where a time is.
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.seconds)
    }

    fn panel(&self, svg: &mut String, panel: &Panel, top: f64) {
        let bottom = top + panel.height;
        for (when, _) in &panel.notes {
            let (from, to) = (self.x(when.start), self.x(when.end));
            let _ = writeln!(
                svg,
                r##"<rect x="{from:.1}" y="{}" width="{:.1}" height="{}" fill="#eef1f4"/>"##,
                top - 22.0,
                to - from,
                panel.height + 22.0
            );
        }
        let _ = writeln!(
            svg,
            r#"<text x="20" y="{:.0}" fill="{PALE}">{}</text>"#,
            top - 9.0,
            panel.title
        );
        self.grid(svg, panel, top);
        match &panel.body {
            Body::Over(Shape::Stacked, lines) => self.stack(svg, panel, lines, top),
            Body::Over(Shape::Lines, lines) => self.lines(svg, panel, lines, top),
            Body::Bars(groups) => bars(svg, panel, groups, top),
            Body::Dots { rows, dots } => self.dots(svg, panel, *rows, dots, top),
        }
        for (when, text) in &panel.notes {
            let middle = f64::midpoint(self.x(when.start), self.x(when.end));
            let _ = writeln!(
                svg,
                r#"<text x="{middle:.1}" y="{:.0}" text-anchor="middle" font-weight="600">{text}</text>"#,
                top - 9.0
            );
        }
        let right = WIDTH - RIGHT;
        let _ = writeln!(
            svg,
            r#"<path d="M{LEFT} {bottom}H{right}" stroke="{PALE}"/>"#
        );
    }

    fn grid(&self, svg: &mut String, panel: &Panel, top: f64) {
        let bottom = top + panel.height;
        let mut value = 0.0;
        while panel.step > 0.0 && value <= panel.most {
            let y = bottom - panel.height * value / panel.most;
            let _ = writeln!(
                svg,
                r##"<path d="M{LEFT} {y:.1}H{}" stroke="#e4e8ec"/><text x="{}" y="{:.1}" text-anchor="end" fill="{PALE}">{value}</text>"##,
                WIDTH - RIGHT,
                LEFT - 7.0,
                y + 4.0
            );
            value += panel.step;
        }
        if matches!(panel.body, Body::Bars(_)) {
            return;
        }
        let mut second = 0.0;
        while second <= self.seconds {
            let unit = if second + self.tick > self.seconds {
                " s"
            } else {
                ""
            };
            let _ = writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.0}" text-anchor="middle" fill="{PALE}">{}{unit}</text>"#,
                self.x(second),
                bottom + 17.0,
                second + self.from
            );
            second += self.tick;
        }
    }

    /// A way through points, from left to right or back.
    fn way(&self, panel: &Panel, top: f64, points: &[f64], back: bool) -> String {
        let last = f64::from(u32::try_from(points.len() - 1).unwrap());
        let place = |(n, point): (usize, &f64)| {
            let n = f64::from(u32::try_from(n).unwrap());
            let x = self.x(self.seconds * n / last);
            let part = (point / panel.most).clamp(0.0, 1.0);
            format!("{x:.0} {:.1}", top + panel.height * (1.0 - part))
        };
        let mut all: Vec<String> = points.iter().enumerate().map(place).collect();
        if back {
            all.reverse();
        }
        all.join("L")
    }

    fn stack(&self, svg: &mut String, panel: &Panel, lines: &[Line], top: f64) {
        let mut under = vec![0.0; lines[0].points.len()];
        for line in lines {
            let above: Vec<f64> = under.iter().zip(&line.points).map(|(a, b)| a + b).collect();
            let _ = writeln!(
                svg,
                r##"<path d="M{}L{}Z" fill="{}" stroke="#ffffff" stroke-width="0.8"/>"##,
                self.way(panel, top, &above, false),
                self.way(panel, top, &under, true),
                line.colour
            );
            under = above;
        }
    }

    fn lines(&self, svg: &mut String, panel: &Panel, lines: &[Line], top: f64) {
        for line in lines {
            let _ = writeln!(
                svg,
                r#"<path d="M{}" fill="none" stroke="{}" stroke-width="2" stroke-linejoin="round"/>"#,
                self.way(panel, top, &line.points, false),
                line.colour
            );
        }
    }

    fn dots(
        &self,
        svg: &mut String,
        panel: &Panel,
        rows: usize,
        dots: &[(Colour, Vec<(f64, usize)>)],
        top: f64,
    ) {
        let high = panel.height / f64::from(u32::try_from(rows).unwrap());
        for (colour, dots) in dots {
            let mut way = String::new();
            for (at, row) in dots {
                let y = top + high * (f64::from(u32::try_from(*row).unwrap()) + 0.5);
                let _ = write!(way, "M{:.1} {y:.1}h0", self.x(*at));
            }
            let _ = writeln!(
                svg,
                r#"<path d="{way}" stroke="{colour}" stroke-width="6" stroke-linecap="round"/>"#
            );
        }
    }
}

fn bars(svg: &mut String, panel: &Panel, groups: &[(&str, Vec<(Colour, f64)>)], top: f64) {
    const WIDE: f64 = 34.0;
    let count = |n: usize| f64::from(u32::try_from(n).unwrap());
    let apart = (WIDTH - LEFT - RIGHT) / count(groups.len());
    let bottom = top + panel.height;
    for (n, (name, bars)) in groups.iter().enumerate() {
        let middle = LEFT + apart * (count(n) + 0.5);
        let _ = writeln!(
            svg,
            r#"<text x="{middle:.1}" y="{:.0}" text-anchor="middle" fill="{PALE}">{name}</text>"#,
            bottom + 17.0
        );
        let mut x = middle - (WIDE + 2.0) * count(bars.len()) / 2.0 + 1.0;
        for (colour, value) in bars {
            let y = bottom - panel.height * (value / panel.most).clamp(0.0, 1.0);
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{WIDE}" height="{:.1}" fill="{colour}"/><text x="{:.1}" y="{:.1}" text-anchor="middle">{value:.2}</text>"#,
                bottom - y,
                x + WIDE / 2.0,
                y - 5.0
            );
            x += WIDE + 2.0;
        }
    }
}

/// What is seen of a log at equal distances, over so much time around each.
pub fn over(log: &Log, step: f64, width: f64, what: impl Fn(Range<f64>) -> f64) -> Vec<f64> {
    let mut points = Vec::new();
    let mut at = 0.0;
    while at <= log.end {
        let from = (at - width / 2.0).max(0.0);
        points.push(what(from..(at + width / 2.0).min(log.end)));
        at += step;
    }
    points
}

/// Requests a second that were sent to these, on top of each other.
pub fn rates(log: &Log, all: &[(Colour, &str)]) -> Body {
    let lines = all.iter().map(|(colour, name)| Line {
        colour,
        points: over(log, 1.0, 1.5, |when| log.rate(name, when)),
    });
    Body::Over(Shape::Stacked, lines.collect())
}
