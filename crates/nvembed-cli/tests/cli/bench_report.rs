//! `nvembed bench report`: what the page draws, looked at in a browser, and the tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use crate::common::{mini, skipped};
use crate::{nvembed, run};
use serde_json::{Value, json};

/// Rows of the real program, of two precisions and four shapes, in two rounds.
static MEASURED: LazyLock<PathBuf> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-report.jsonl");
    let _ = fs::remove_file(&file); // of another run, since rows are appended
    let mut command = nvembed();
    command.args(["bench", "--quiet", "--seconds", "0.01", "--min-calls", "2", "--rounds", "2"]);
    command.args(["--batch", "1,3", "--length", "16,40", "-m"]).arg(mini("fp32")).arg("-m").arg(mini("int8"));
    let output = run(command.arg("-o").arg(&file), b"");
    assert!(output.status.success(), "{output:?}");
    file
});

fn rows(file: &Path) -> Vec<Value> {
    fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write(file: PathBuf, rows: &[Value]) -> PathBuf {
    fs::write(&file, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    file
}

fn shape(batch: usize, length: usize) -> Value {
    json!({"kind": "shape", "batch": batch, "length": length})
}

/// A row with some fields of its own.
fn row(template: &Value, changes: Value) -> Value {
    let mut row = template.clone();
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    row
}

/// What no CPU gives at will: another machine's provider, rates, and rows that are no results though they hold speeds.
fn made_up(template: &Value) -> Vec<Value> {
    let cuda = row(template, json!({"provider": "cuda", "gpu": "Example GPU", "processor": "Another processor"}));
    let mut rows = vec![
        row(&cuda, json!({"workload": shape(1, 16), "tokens_per_s": 100.0})),
        row(&cuda, json!({"workload": shape(1, 16), "tokens_per_s": 400.0, "round": 1})),
        row(&cuda, json!({"workload": shape(1, 16), "tokens_per_s": 200.0, "round": 2})),
        row(
            &cuda,
            json!({"workload": shape(1, 40), "tokens_per_s": 1e9, "status": "wrong", "error": "it is 0.5 </script><b>"}),
        ),
        row(
            &cuda,
            json!({"workload": shape(3, 16), "tokens_per_s": 1e9, "status": "failed", "error": "out | of memory"}),
        ),
        row(&cuda, json!({"workload": shape(3, 40), "tokens_per_s": 1e9, "status": "dry_run", "calls": 1})),
        row(template, json!({"workload": {"kind": "texts"}, "padding_waste": 0.25, "tokens_per_s": 300.0})),
    ];
    for (rate, answered) in [(5.0, 5.0), (50.0, 20.0), (100.0, 20.0)] {
        rows.push(row(
            template,
            json!({"workload": {"kind": "texts"}, "rate_per_s": rate, "texts_per_s": answered, "padding_waste": null,
            "session_share": null, "share_of_peak": null, "rows": 1}),
        ));
    }
    rows
}

fn report(files: &[&Path], arguments: &[&str]) -> Output {
    run(nvembed().args(["bench", "report"]).args(files).args(arguments), b"")
}

/// What a script sees of the page, `width` pixels wide, in a browser without a network. The page is not changed: it is a
/// frame of another one.
fn look(page: &Path, width: usize, script: &str) -> Option<Value> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = found else {
        assert!(std::env::var_os("NVEMBED_REQUIRE_TOOLS").is_none(), "none of {names:?} is installed");
        skipped("looking at the report", &format!("none of {names:?} is installed"));
        return None;
    };
    let frame = page.with_extension("frame.html");
    let name = page.file_name().unwrap().to_str().unwrap();
    let html = format!(
        "<!doctype html><iframe src='{name}' style='width:{width}px;height:900px;border:0'></iframe><script>
onload = async () => {{
  const view = document.querySelector('iframe').contentWindow, page = view.document;
  const count = (selector) => page.querySelectorAll(selector).length;
  const texts = (selector) => [...page.querySelectorAll(selector)].map((one) => one.textContent);
  let seen;
  try {{ seen = await (async () => {{ {script} }})(); }} catch (error) {{ seen = {{ error: `${{error}}` }}; }}
  const result = document.createElement('pre');
  result.textContent = `SEEN${{JSON.stringify(seen)}}SEEN`;
  document.body.replaceChildren(result);
}};</script>"
    );
    fs::write(&frame, html).unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=10000"])
        .arg(format!("--user-data-dir={}", page.with_extension("profile").display()))
        .arg(format!("file://{}", frame.display()))
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!log.contains("CONSOLE"), "{log}");
    let seen = dom.split("SEEN").nth(1).unwrap_or_else(|| panic!("nothing seen: {dom}\n{log}"));
    let seen = seen.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", "\u{a0}").replace("&amp;", "&");
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert!(seen.get("error").is_none(), "{seen}");
    Some(seen)
}

/// The rows with the longest numbers that a machine may give, different in each round.
fn long_numbers(rows: &[Value]) -> Vec<Value> {
    let long = |(index, template): (usize, &Value)| {
        let of = |number: f64| json!(number + index as f64 * 11_111.1);
        let latency = json!({"min": of(1e5), "p50": of(123_456.7), "p90": of(2e5), "p99": of(3e5), "max": of(4e5)});
        let changes = json!({"tokens_per_s": of(1_123_456.7), "texts_per_s": of(223_456.7), "latency_ms": latency,
            "gflop_per_s": of(523_456.7), "peak_gflop_per_s": of(923_456.7), "peak_memory_bytes": 700_000_000_000_u64,
            "device_memory_bytes": 80_000_000_000_u64, "open_s": of(1_234.5), "calls": 1_000_000});
        row(template, changes)
    };
    rows.iter().enumerate().map(long).collect()
}

/// Results of `fast`, of `near`, three times slower, and of `slow`, 120 times slower on a CPU but not on a GPU: every kind
/// of workload that is plotted, and one call that took a thousand times as long as the others.
fn far_apart(template: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for (model, provider, precision, factor) in [
        ("fast", "cpu", "fp32", 1.0),
        ("fast", "cpu", "int8", 0.5),
        ("near", "cpu", "fp32", 3.0),
        ("near", "cpu", "int8", 2.0),
        ("slow", "cpu", "fp32", 120.0),
        ("slow", "cpu", "int8", 60.0),
        ("slow", "cuda", "fp32", 0.8),
    ] {
        let series = row(template, json!({"model": model, "provider": provider, "precision": precision}));
        let mut add = |workload: Value, batch: usize, tokens: usize, changes: Value| {
            let speed = 40_000.0 / factor * (1.0 + batch as f64 / 16.0);
            let p50 = tokens as f64 / speed * 1e3;
            let outlier = if (factor, batch) == (1.0, 8) { 1000.0 } else { 2.0 };
            let latency =
                json!({"min": 0.9 * p50, "p50": p50, "p90": 1.2 * p50, "p99": 1.5 * p50, "max": outlier * p50});
            let common = json!({"workload": workload, "rows": batch, "tokens": tokens, "tokens_per_s": speed,
                "texts_per_s": speed / 32.0, "latency_ms": latency, "session_share": 1.0 - 0.06 / factor,
                "share_of_peak": 0.8 / factor, "padding_waste": 0.3 / factor});
            rows.push(row(&row(&series, common), changes));
        };
        for (batch, length) in [(1, 32), (8, 32), (1, 128), (8, 128)] {
            add(shape(batch, length), batch, batch * length, json!({}));
        }
        add(json!({"kind": "texts"}), 16, 700, json!({}));
        for rate in [5.0, 50.0] {
            add(json!({"kind": "texts"}), 1, 40, json!({"rate_per_s": rate / factor, "padding_waste": null}));
        }
    }
    rows
}

fn page_of(rows: &[Value], folder: &Path, name: &str) -> PathBuf {
    let results = write(folder.join(name).with_extension("jsonl"), rows);
    let page = folder.join(name).with_extension("html");
    let output = report(&[&results], &["-o", page.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    page
}

/// Results of every kind, and the page made of them.
fn every_kind(folder: &Path) -> PathBuf {
    let made_up = write(folder.join("made up.jsonl"), &made_up(&rows(&MEASURED)[0]));
    let page = folder.join("report.html");
    let output = report(&[&MEASURED, &made_up], &["-o", page.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    page
}

#[test]
fn every_result_is_drawn_and_what_is_none_is_said_instead() {
    let folder = tempfile::tempdir().unwrap();
    let page = every_kind(folder.path());
    let script = r#"
        const drawn = {};
        for (const { id } of page.querySelectorAll('main section')) {
          drawn[id] = count(`#${id} g[aria-label="dot"] > *`) + count(`#${id} g[aria-label="rect"] > *`);
        }
        const marks = [...page.querySelectorAll('#batch g[aria-label="dot"] > *')];
        const places = marks.map((mark) => mark.getBoundingClientRect());
        return {
          drawn,
          spreads: count('#batch [aria-label="minimum to maximum"]'),
          hollow: count('#load g[aria-label="dot"] > [fill="var(--card)"]'),
          finite: places.every((place) => place.width > 0 && place.width < 30),
          series: texts('#series label span'), warnings: texts('#warnings li'), best: texts('#best .value'), notes: texts('#notes li'),
          table: [...page.querySelectorAll('#numbers tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent)),
          facts: page.querySelector('#facts').textContent,
          loaded: view.performance.getEntriesByType('resource').length, bold: count('b'),
        };"#;
    let Some(seen) = look(&page, 1400, script) else { return };
    let wanted = json!({"batch": 9, "length": 9, "throughput": 1, "load": 9, "latency": 10, "quality": 3, "peak": 10,
        "session": 10, "padding": 1});
    assert_eq!(seen["drawn"], wanted);
    assert!(seen["spreads"].as_u64().unwrap() >= 1 && seen["finite"] == true, "{seen}");
    assert_eq!(seen["hollow"], 6, "the rates that were not kept up with, in each quantile's plot");
    assert_eq!(seen["series"], json!(["cpu · fp32", "cpu · int8", "cuda · fp32"]));
    assert_eq!((&seen["loaded"], &seen["bold"]), (&json!(0), &json!(0)), "nothing is loaded, and no text is markup");

    let text =
        |list: &Value| list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join("\n");
    let warnings = text(&seen["warnings"]);
    for wanted in [
        "Not timed: 1 of 26 results (wrong embeddings).",
        "Not timed: 1 of 26 results (failed).",
        "Not timed: 1 of 26 results (dry run).",
        "Results come from 2 machines.",
        "cuda · fp32: wrong (1x40) it is 0.5 </script><b>",
        "cuda · fp32: failed (3x16) out | of memory",
        "cuda · fp32: dry run (3x40)",
    ] {
        assert!(warnings.contains(wanted), "{wanted}: {warnings}");
    }
    assert!(!text(&seen["best"]).contains("1,000,000,000"), "a speed of no result is the best: {seen}");
    for wanted in ["Example GPU", "Another processor", "ONNX Runtime 1.", "commit", "bench --quiet", "Copyright"] {
        assert!(seen["facts"].as_str().unwrap().contains(wanted), "{wanted}: {}", seen["facts"]);
    }

    let table = seen["table"].as_array().unwrap();
    assert_eq!(table.len(), 16, "{table:?}");
    let line = |of: &str, workload: &str| {
        let found = table.iter().find(|row| row[0] == of && row[1] == workload);
        found.unwrap_or_else(|| panic!("{of} {workload}: {table:?}")).as_array().unwrap().clone()
    };
    assert_eq!(line("cuda · fp32", "1 × 16")[2..4], ["ok", "200100 to 400"], "the median, the least and the largest");
    assert_eq!(line("cuda · fp32", "1 × 40")[2..], ["wrong", "it is 0.5 </script><b>"]);
    assert_eq!(line("cuda · fp32", "3 × 40")[2], "dry run");
    assert_eq!(line("cpu · int8", "3 × 40").last().unwrap(), "2", "rounds");
}

#[test]
fn nothing_is_cut_off_on_narrow_and_wide_screens() {
    let folder = tempfile::tempdir().unwrap();
    let every_kind = every_kind(folder.path());
    let long = page_of(&long_numbers(&rows(&MEASURED)), folder.path(), "long");
    let far_apart = page_of(&far_apart(&rows(&MEASURED)[0]), folder.path(), "far apart");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/results");
    let committed = ["mini-cpu.jsonl", "wide-cpu.jsonl"].map(|file| rows(&results.join(file))).concat();
    let committed = page_of(&committed, folder.path(), "committed");
    let pages = [&every_kind, &long, &far_apart, &committed];
    for (page, width) in pages.into_iter().flat_map(|page| [(page, 400), (page, 1400)]) {
        let script = r#"
            const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
            const cut = [];
            for (const figure of page.querySelectorAll('figure')) {
              const frame = figure.getBoundingClientRect();
              for (const one of figure.querySelectorAll('svg, text')) {
                const box = one.getBoundingClientRect();
                if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom) {
                  cut.push(`${one.tagName} ${one.textContent}`);
                }
              }
            }
            for (const axis of page.querySelectorAll('g[aria-label="x-axis tick label"]')) {
              const boxes = [...axis.children].map((one) => one.getBoundingClientRect()).sort((one, other) => one.left - other.left);
              if (boxes.some((box, place) => place > 0 && box.left < boxes[place - 1].right)) cut.push(`overlap: ${axis.textContent}`);
            }
            const scroll = page.querySelector('.scroll');
            const hidden = scroll.scrollWidth - scroll.clientWidth;
            return { wide, cut, hidden, figures: count('figure svg'), inner: view.innerWidth };"#;
        let Some(seen) = look(page, width, script) else { return };
        assert_eq!((&seen["wide"], &seen["cut"], &seen["inner"]), (&json!(0), &json!([]), &json!(width)));
        assert!(seen["figures"].as_u64().unwrap() > 10, "{seen}");
        assert!(width < 1400 || seen["hidden"] == 0, "the table needs scrolling: {seen}");
    }
}

#[test]
fn no_series_is_flat_beside_another() {
    let folder = tempfile::tempdir().unwrap();
    let page = page_of(&far_apart(&rows(&MEASURED)[0]), folder.path(), "far apart");
    let script = r#"
        // The series of each plot with a linear axis, and how far along the axis each reaches.
        const plots = () => [...page.querySelectorAll('main figure')].map((figure) => {
          const svg = figure.querySelector('svg');
          const name = ['x', 'y'].find((one) => svg.scale(one)?.type === 'linear');
          const scale = svg.scale(name ?? 'y'), frame = svg.getBoundingClientRect();
          const reach = {};
          for (const mark of svg.querySelectorAll('g[aria-label="dot"] > *, g[aria-label="rect"] > *')) {
            const box = mark.getBoundingClientRect(), bar = mark.localName === 'rect';
            const at = name === 'x' ? (bar ? box.right : (box.left + box.right) / 2) - frame.left : (box.top + box.bottom) / 2 - frame.top;
            const share = name && Math.abs(at - scale.apply(0)) / Math.abs(scale.range[1] - scale.range[0]);
            const series = mark.ariaLabel?.split(', ')[0] ?? view.getComputedStyle(mark).fill;
            reach[series] = Math.max(reach[series] ?? 0, share ?? 1);
          }
          return { section: figure.closest('section').id, reach };
        });
        const headings = () => Object.fromEntries([...page.querySelectorAll('main section')].map(({ id }) => [id, texts(`#${id} h3`)]));
        const result = { plots: plots(), headings: headings(), slowest: texts('#latency svg').join().split('slowest').length - 1,
          best: texts('#best dt') };
        page.querySelector('#series label:nth-of-type(1) input').click();
        result.without = { plots: plots(), headings: headings() };
        return result;"#;
    for width in [400, 1400] {
        let Some(seen) = look(&page, width, script) else { return };
        let plots = |of: &Value| -> Vec<(String, Vec<(String, f64)>)> {
            let plot = |plot: &Value| {
                let reach = plot["reach"].as_object().unwrap().iter();
                let reach = reach.map(|(series, reach)| (series.clone(), reach.as_f64().unwrap()));
                (plot["section"].as_str().unwrap().to_owned(), reach.collect())
            };
            of["plots"].as_array().unwrap().iter().map(plot).collect()
        };
        let all = plots(&seen);
        let flat: Vec<_> =
            all.iter().filter(|(_, of)| of.len() > 1 && of.iter().any(|(_, reach)| *reach < 0.05)).collect();
        assert!(flat.is_empty(), "{width}: {flat:?}");

        // Models of like speed share plots, precisions of one model always do.
        let (fast, slow) = ("fast, near, slow (cuda · fp32)", "slow (cpu · fp32, cpu · int8)");
        for section in ["batch", "length", "throughput", "load", "latency", "quality", "peak", "session", "padding"] {
            assert_eq!(seen["headings"][section], json!([fast, slow]), "{section}");
            let sizes: Vec<_> = all.iter().filter(|(of, _)| of == section).map(|(_, of)| of.len()).collect();
            let half = sizes.len() / 2;
            assert!(half > 0 && sizes == [vec![5; half], vec![2; half]].concat(), "{section}: {sizes:?}");
        }
        assert_eq!(seen["slowest"], 2, "one call off the axis in each workload with 8 texts");
        let best = seen["best"].as_array().unwrap();
        assert!(best.len() == 9 && best.contains(&json!("slow: highest throughput")), "{best:?}");

        // Hiding a series moves no other.
        assert_eq!(seen["headings"], seen["without"]["headings"]);
        let sizes = |plots: &[(String, Vec<_>)]| plots.iter().map(|(_, of)| of.len()).collect::<Vec<_>>();
        let fewer: Vec<_> = sizes(&all).into_iter().map(|size| if size == 5 { 4 } else { size }).collect();
        assert_eq!(sizes(&plots(&seen["without"])), fewer);
    }
}

#[test]
fn the_page_answers_to_pointer_and_keyboard() {
    let folder = tempfile::tempdir().unwrap();
    let page = every_kind(folder.path());
    let script = r#"
        const points = () => count('#batch g[aria-label="dot"] > *');
        const all = points();
        const mark = page.querySelector('#batch [aria-label^="cuda · fp32"]');
        const box = mark.getBoundingClientRect();
        const at = { clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, pointerType: 'mouse', bubbles: true };
        for (const kind of ['pointerenter', 'pointermove']) {
          mark.closest('svg').dispatchEvent(new view.PointerEvent(kind, at));
          await new Promise((done) => setTimeout(done, 100));
        }
        const tip = texts('#batch g[aria-label="tip"]').join('');
        page.querySelector('#series label:nth-of-type(3) input').click();
        const without = points();
        const select = page.querySelector('#quality select');
        select.value = '3x40';
        select.dispatchEvent(new view.Event('change'));
        const chosen = count('#quality g[aria-label="dot"] > *');
        const button = [...page.querySelectorAll('#numbers th button')].find((one) => one.textContent === 'tokens/s');
        const speeds = () => {
          const rows = [...page.querySelectorAll('#numbers tbody tr')].filter((row) => row.children[2].textContent === 'ok');
          return rows.map((row) => parseFloat(row.children[3].firstChild.textContent.replaceAll(',', '')));
        };
        button.click();
        const falling = [speeds(), button.parentElement.getAttribute('aria-sort')];
        button.click();
        const rising = [speeds(), button.parentElement.getAttribute('aria-sort')];
        const named = [...page.querySelectorAll('figure svg, table button, input, select, .scroll')].every((one) =>
          one.ariaLabel || one.textContent || one.labels?.length || one.hasAttribute('aria-labelledby'));
        return { all, tip, without, chosen, falling, rising, named, headings: texts('h1, h2') };"#;
    let Some(seen) = look(&page, 1400, script) else { return };
    assert_eq!((&seen["all"], &seen["without"], &seen["chosen"]), (&json!(9), &json!(8), &json!(2)));
    for wanted in ["cuda · fp32", "200 (100 to 400) tokens/s", "3 rounds"] {
        assert!(seen["tip"].as_str().unwrap().contains(wanted), "{wanted}: {seen}");
    }
    let speeds =
        |order: &Value| order[0].as_array().unwrap().iter().map(|speed| speed.as_f64().unwrap()).collect::<Vec<_>>();
    assert!(speeds(&seen["falling"]).is_sorted_by(|a, b| a >= b) && seen["falling"][1] == "descending", "{seen}");
    assert!(
        speeds(&seen["rising"]).is_sorted() && seen["rising"][1] == "ascending" && speeds(&seen["rising"]).len() == 13
    );
    assert!(seen["named"] == true && seen["headings"].as_array().unwrap().len() == 12, "{seen}");
}

#[test]
fn the_page_names_no_resource_of_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(every_kind(folder.path())).unwrap();
    assert!(text.contains("default-src 'none'"));
    for resource in ["src=", "<link", "@import", "url(", "<iframe", "<img"] {
        // In the libraries these are parts of code that makes elements, such as a gradient's reference.
        let outside = text
            .split("<script>")
            .enumerate()
            .map(|(place, part)| if place == 0 { part } else { part.split_once("</script>").unwrap().1 });
        assert!(!outside.collect::<String>().contains(resource), "{resource}");
    }
}

#[test]
fn the_table_has_a_line_for_each_measurement_and_each_reason() {
    let folder = tempfile::tempdir().unwrap();
    let made_up = write(folder.path().join("made up.jsonl"), &made_up(&rows(&MEASURED)[0]));
    let output = report(&[&MEASURED, &made_up], &["--markdown"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2 + 13 + 3, "{text}");
    let cells: Vec<_> = lines.iter().map(|line| line.replace("\\|", "").matches('|').count()).collect();
    assert_eq!(cells, vec![cells[0]; cells.len()], "{text}");
    assert!(text.contains("| cuda | fp32 | 1x16 | 200 (100 to 400) |"), "{text}");
    assert!(text.contains("| cuda | fp32 | 3x16 | **failed**: out \\| of memory |"), "{text}");
    assert!(text.contains(" Results come from 2 machines.") && !text.contains("1,000,000,000"), "{text}");

    let one = report(&[&MEASURED, &made_up], &["--markdown", "--workload", "3x40"]);
    let one = String::from_utf8(one.stdout).unwrap();
    assert_eq!(one.lines().take_while(|line| !line.is_empty()).count(), 2 + 2 + 1, "{one}");
}

#[test]
fn names_take_what_tells_series_apart_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let template = &rows(&MEASURED)[0];
    let names = |changes: &[Value]| {
        let rows: Vec<_> = changes.iter().map(|changes| row(template, changes.clone())).collect();
        let file = write(folder.path().join("names.jsonl"), &rows);
        let text = String::from_utf8(report(&[&file], &["--markdown"]).stdout).unwrap();
        let lines: Vec<_> = text.lines().skip(2).take_while(|line| !line.is_empty()).collect();
        lines.iter().map(|line| line.split(" | 1x16 ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&[json!({}), json!({"folder": "elsewhere", "precision": "fp16"})]),
        ["| cpu | fp32", "| cpu | fp16"]
    );
    let threads = names(&[json!({"threads": 1}), json!({}), json!({"threads": 1, "round": 1})]);
    assert_eq!(threads, ["| cpu | fp32 | --intra-threads 1", "| cpu | fp32 | default threads"]);
    let commits = names(&[json!({"commit": "aaa"}), json!({"commit": "bbb"})]);
    assert_eq!(commits, ["| cpu | fp32 | commit aaa", "| cpu | fp32 | commit bbb"]);
    // The same workload of another amount of text is another measurement.
    let texts = |tokens: usize| json!({"workload": {"kind": "texts"}, "tokens": tokens, "rows": 2});
    let file = write(folder.path().join("texts.jsonl"), &[row(template, texts(20)), row(template, texts(40))]);
    let text = String::from_utf8(report(&[&file], &["--markdown"]).stdout).unwrap();
    assert!(text.contains("| texts (2 × 10 tokens) |") && text.contains("| texts (2 × 20 tokens) |"), "{text}");
}

#[test]
fn what_cannot_be_shown_is_refused_and_no_page_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path().join("empty.jsonl"), &[]);
    let damaged = folder.path().join("damaged.jsonl");
    fs::write(&damaged, "\n{}\n").unwrap();
    let missing = folder.path().join("missing.jsonl");
    let page = folder.path().join("page.html");
    let output = page.to_str().unwrap();
    for (file, arguments, code, wanted) in [
        (&empty, vec!["-o", output], 3, "no rows"),
        (&damaged, vec!["-o", output], 3, "damaged.jsonl:2: not a row of results"),
        (&missing, vec!["-o", output], 3, "missing.jsonl cannot be read"),
        (&empty, vec!["-o", output, "--workload", "8x8"], 2, "--workload 8x8: no row"),
        (&empty, vec![], 2, "--output"),
    ] {
        let output = report(&[file], &arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wanted), "{wanted}: {output:?}");
    }
    assert!(!page.exists());
    let nowhere = report(&[&MEASURED], &["-o", folder.path().join("no folder/page.html").to_str().unwrap()]);
    assert_eq!(nowhere.status.code(), Some(7), "{nowhere:?}");
}
