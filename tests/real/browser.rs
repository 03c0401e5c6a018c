//! The lab's browser and its JupyterLab: what the tests of notebooks are made of.

use dockerutils_test_support::Browser;
use dockerutils_test_support::lab::{self, NotebookImage};
use dockerutils_tests::jupyter::Jupyter;

#[test]
fn a_cell_computes_in_the_page_of_a_jupyterlab() {
    let engine = lab::engine("local").unwrap();
    let image = engine.notebook_image(NotebookImage::Jupyter).unwrap();
    let jupyter = Jupyter::start(&engine, &image, &[], &[]);
    jupyter.save_notebook("answer.ipynb", &[]);
    let browser = Browser::start();
    browser.open(&jupyter.url("/lab/tree/answer.ipynb"));
    browser.wait_for_notebook();
    assert_eq!(browser.run_cell("6*7"), "42");
    assert_eq!(browser.run_cell("print('a', 'b', sep='\\n')"), "a\nb");
    browser.picture("a-cell-computes");
}
