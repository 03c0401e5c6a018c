//! Dockerfiles that nobody would write: every way to say the name of an image, and every line that only
//! looks like one.
//!
//! Nearly all of them are such as BuildKit builds: a refusal says nothing of all that comes after it.

use dockerutils_test_support::Random;

/// A Dockerfile, and the build arguments that it is built with.
pub(super) struct Generated {
    /// Its text.
    pub(super) text: String,
    /// `NAME=value`.
    pub(super) arguments: Vec<(String, String)>,
}

/// Stages of one Dockerfile, but for the two at its end.
const STAGES: usize = 10;
/// Variables: some are ARGs, some have values, U is never anything.
const NAMES: [&str; 8] = ["A", "B", "C", "D", "U", "TARGETARCH", "TARGETOS", "BUILDVARIANT"];
const LITERALS: [&str; 6] = ["a", "b1", "xyx", "q0", "y", "bb"];
const PATTERNS: [&str; 12] = ["x*", "?", "*y", "b?", "*", "a", "q0", "*x*", "??", "", "\\*", "y\\?"];

/// Makes one.
pub(super) fn dockerfile(random: &mut Random) -> Generated {
    let escape = if random.one_in(4) { '`' } else { '\\' };
    let mut making = Making {
        random,
        escape,
        text: String::new(),
        images: 0,
    };
    if escape == '`' {
        let begin = *making
            .random
            .pick(&["# escape=`\n", "#escape = `\n", "# check=skip=all\n# Escape=`\n"]);
        making.text += begin;
    } else {
        let begin = *making
            .random
            .pick(&["", "", "# a comment\n# escape=`\n", "\n# escape=`\n"]);
        making.text += begin;
    }
    making.arguments();
    for stage in 0..STAGES {
        making.stage(stage);
    }
    // What is left to others by ONBUILD counts here, and all stages are needed.
    making.text += "FROM s0 AS child\nFROM scratch\nCOPY --from=child /f /g\n";
    for stage in 0..STAGES {
        making.text += &format!("COPY --from=s{stage} /f /g\n");
    }
    let mut arguments = Vec::new();
    for name in ["A", "D", "TARGETOS"] {
        if making.random.one_in(4) {
            arguments.push((name.to_owned(), (*making.random.pick(&["given", "", "bxb"])).to_owned()));
        }
    }
    Generated {
        text: making.text,
        arguments,
    }
}

struct Making<'a> {
    random: &'a mut Random,
    escape: char,
    text: String,
    /// Images that were named by COPY and mounts: each is another.
    images: usize,
}

impl Making<'_> {
    fn arguments(&mut self) {
        for _ in 0..3 {
            let keyword = *self.random.pick(&["ARG ", "arg\t", "ARG   "]);
            self.text += keyword;
            for _ in 0..=self.random.index(2) {
                let name = *self.random.pick(&["A", "B", "C", "D", "TARGETOS"]);
                let value = match self.random.below(6) {
                    0 => String::new(),
                    1 => format!("={}", self.piece(3)),
                    2 => "=".to_owned(),
                    _ => format!("={}{}", self.piece(3), self.piece(3)),
                };
                self.text += &format!("{name}{value} ");
            }
            self.text.push('\n');
        }
    }

    fn stage(&mut self, number: usize) {
        let base = if number > 0 && self.random.one_in(6) {
            format!("s{}", self.random.index(number))
        } else {
            self.image()
        };
        let flag = *self.random.pick(&[
            "",
            "",
            "",
            "--platform=$BUILDPLATFORM ",
            "--platform=\"${TARGETPLATFORM}\" ",
            "--platform='linux/'${TARGETARCH:-amd64} ",
        ]);
        let escape = self.escape;
        let from = match self.random.below(6) {
            0 => format!("FROM {escape}\n  {flag}{base} AS s{number}\n"),
            1 => format!("from {flag}{base} {escape} \n# comment {escape}\n\n\t As S{number}\n"),
            _ => format!("FROM {flag}{base} as s{number}\n"),
        };
        self.text += &from;
        for _ in 0..self.random.index(4) {
            if self.random.one_in(2) {
                self.noise();
            } else {
                self.source(number);
            }
        }
    }

    /// The name of an image, legal whatever its variables are.
    fn image(&mut self) -> String {
        let separator = *self.random.pick(&["-", ".", "/", "__", "\"-\"", "'/'"]);
        let tag = if self.random.one_in(2) {
            format!(":t{}{}", self.piece(3), self.piece(2))
        } else {
            String::new()
        };
        let refused = match self.random.below(600) {
            0 => "${U:?is not there}",
            1 => "${U?}",
            2 => "\"",
            3 => "${A",
            4 => "${A!x}",
            5 => "${A:-${U:?read all the same}}",
            6 => "${A:#x}",
            _ => "",
        };
        format!(
            "n{}{}{separator}m{}{tag}{refused}",
            self.piece(3),
            self.piece(2),
            self.piece(1)
        )
    }

    /// A part of a name, maybe empty.
    fn piece(&mut self, depth: usize) -> String {
        let name = *self.random.pick(&NAMES);
        let escape = self.escape;
        if depth == 0 {
            return (*self.random.pick(&LITERALS)).to_owned();
        }
        match self.random.below(16) {
            0 => format!("${{{name}}}"),
            1 => format!("${name}"),
            2 | 3 => {
                let operator = *self.random.pick(&[":-", "-", ":+", "+"]);
                format!(
                    "${{{name}{operator}{}{}}}",
                    self.piece(depth - 1),
                    self.piece(depth - 1)
                )
            }
            4 | 5 => {
                let operator = *self.random.pick(&["#", "##", "%", "%%"]);
                format!("${{{name}{operator}{}}}", self.random.pick(&PATTERNS))
            }
            6 | 7 => {
                let operator = *self.random.pick(&["/", "//"]);
                let pattern = loop {
                    // Nothing before the second slash is another operator.
                    match *self.random.pick(&PATTERNS) {
                        "" => {}
                        pattern => break pattern,
                    }
                };
                format!("${{{name}{operator}{pattern}/{}}}", self.piece(depth - 1))
            }
            8 => format!("\"{}\"", self.piece(depth - 1)),
            9 => format!("'{}'", self.random.pick(&LITERALS)),
            10 => format!("{escape}{}", self.random.pick(&LITERALS)),
            11 => format!("${{{name}:?}}").replace(name, "TARGETARCH"),
            _ => (*self.random.pick(&LITERALS)).to_owned(),
        }
    }

    /// An image or a stage that something is copied or mounted from.
    fn source(&mut self, stage: usize) {
        self.images += 1;
        let image = format!("c{}:{}", self.images, self.random.below(3));
        let kind = self.random.below(12);
        // What is left to others is read where it is done, with the escape of those who say nothing.
        let escape = if matches!(kind, 6 | 7) { '\\' } else { self.escape };
        let quoted = match self.random.below(4) {
            0 => format!("\"{image}\""),
            1 => format!("c\"{}\"", image.trim_start_matches('c')),
            2 => format!("{escape}{image}"),
            _ => image.clone(),
        };
        let line = match kind {
            0 => format!("COPY --from={quoted} /f /g"),
            1 => format!("copy --chown=1:1 --from={quoted} /f /g"),
            2 => format!("RUN --mount=type=bind,from={quoted},target=/x true"),
            3 => format!(
                "RUN --mount=type=bind,target=/y,\"from={image}\",source=/a --mount=from=c{0},target=/x true",
                self.images
            ),
            4 => format!("run --network=none --mount=\"target=/x,FROM={image}\" true"),
            5 => format!("RUN --mount=type=cache,target=/x,from={quoted} <<EOF\nFROM trap\nEOF"),
            6 => format!("ONBUILD COPY --from={quoted} /f /g"),
            7 => format!("ONBUILD RUN --mount=from={quoted},target=/x <<EOF\nFROM trap\nEOF"),
            8 if stage > 0 => format!("COPY --from={} /f /g", self.random.index(stage)),
            9 if stage > 0 => format!("COPY --from=S{} /f /g", self.random.index(stage)),
            10 => format!("RUN --mount=from={},target=/x true", self.random.below(3)),
            _ => format!("COPY --from={image} {}\n  /f /g", self.escape),
        };
        self.text += &line;
        self.text.push('\n');
    }

    /// What looks like an image, but is not one.
    fn noise(&mut self) {
        let escape = self.escape;
        let line = match self.random.below(18) {
            0 => "RUN <<EOF\nFROM trap\nCOPY --from=trap a b\nEOF".to_owned(),
            1 => "RUN <<\"E F\" cat\nFROM trap\nE F".to_owned(),
            2 => "RUN cat <<E\"O\"F >/x\nFROM trap\nEOF".to_owned(),
            3 => "RUN <<-EOF\n\tFROM trap\nEO\n\t\tEOF".to_owned(),
            4 => "RUN cat <<A 3<<-'B'\nFROM trap\nB\nA\nFROM trap\n\tB".to_owned(),
            5 => "COPY <<EOF <<FOE /x/\nFROM trap\nEOF\nFROM trap\nFOE".to_owned(),
            6 => "RUN cat <<$U\nFROM trap\n$U".to_owned(),
            7 => "RUN cat <<E\\OF\nFROM trap\nEOF".to_owned(),
            8 => "ONBUILD RUN <<EOF\nFROM trap\nEOF".to_owned(),
            9 => format!("RUN echo {escape}\n# FROM trap {escape}\n\n FROM trap {escape} \t\n FROM trap"),
            10 => format!("RUN echo x {escape}{escape}"),
            11 => format!("# a comment {escape}"),
            12 => "RUN [\"cat\", \"<<EOF\"]".to_owned(),
            13 => "RUN echo \"<<EOF\" a<<EOF <<<EOF".to_owned(),
            14 => "CMD echo <<EOF".to_owned(),
            15 => "ARG A=trap".to_owned(),
            16 => "ENV B=trap C=trap".to_owned(),
            _ => "RUN echo --from=trap --mount=from=trap,target=/x".to_owned(),
        };
        self.text += &line;
        self.text.push('\n');
    }
}
