"""The page in a real browser, served as `timm-3g page` serves it."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright

from timm_3g import predict
from timm_3g.page.options import SHIPPED

SECONDS = 60

pytestmark = pytest.mark.browser


@pytest.fixture(scope='module')
def browser(chromium) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        yield started
        started.close()


class Visit:
    """A visitor's window, and what it asked for and complained of."""

    def __init__(self, browser: Browser, address: str, width: int = 1200) -> None:
        self.page: Page = browser.new_page(viewport={'width': width, 'height': 900})
        self.page.set_default_timeout(1000 * SECONDS)
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on('request', lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on('console', lambda message: message.type == 'error' and self.complaints.append(message.text))
        self.page.on('pageerror', lambda error: self.complaints.append(str(error)))
        self.page.goto(address)
        self.page.wait_for_selector('#photo input[type=file]', state='attached')

    def upload(self, file: Path) -> None:
        self.page.set_input_files('#photo input[type=file]', file)

    def answer(self, where: str = '#answer') -> str:
        """The most probable class, once there is one."""
        expect(self.page.locator(where)).to_contain_text('%', timeout=1000 * SECONDS)
        return self.page.inner_text(f'{where} h2')

    def tab(self, name: str) -> None:
        self.page.get_by_role('tab', name=name).click()


@pytest.fixture
def visit(browser, address) -> Iterator[Visit]:
    visitor = Visit(browser, address)
    yield visitor
    visitor.page.close()
    assert visitor.hosts <= {urlsplit(address).netloc, ''}, 'another host was asked'
    assert not visitor.complaints, visitor.complaints


@pytest.fixture(scope='module')
def photo(tmp_path_factory) -> Path:
    """Real: scikit-image's cat."""
    from skimage.data import chelsea

    file = tmp_path_factory.mktemp('photos') / 'photo.png'
    Image.fromarray(chelsea()).save(file)
    return file


def test_upload_answer_maps(visit, photo):
    visit.upload(photo)
    assert visit.answer() == 'cat'
    expect(visit.page.locator('#maps')).to_contain_text('product', timeout=1000 * SECONDS)
    expect(visit.page.locator('#maps img')).to_have_count(4)
    visit.page.wait_for_function('Array.from(document.querySelectorAll("#maps img")).every(image => image.naturalWidth == 320)')


def test_a_photograph_by_its_name(visit):
    visit.page.get_by_text('rocket', exact=True).click()
    assert visit.answer()


def test_compare(visit, photo):
    visit.upload(photo)
    visit.answer()
    visit.tab('Compare')
    visit.page.click('#compare')
    assert visit.answer('#answer-a') == visit.answer('#answer-b') == 'cat'
    for where, name in (('#answer-a', SHIPPED), ('#answer-b', f'{SHIPPED}, 2')):
        text = visit.page.inner_text(where)
        assert name in text and re.search(r': [\d.]+ ms', text)


def test_statistics(visit, photo):
    visit.upload(photo)
    visit.answer()
    visit.tab('Statistics')
    visit.page.click('#draw')
    visit.page.wait_for_selector('#statistics img')
    visit.page.fill('#channel input', '64')
    visit.page.click('#draw')
    expect(visit.page.get_by_text('The channel must be from 0 to 63; got 64.')).to_be_visible()


def test_a_model_without_maps_says_so(visit, photo):
    visit.upload(photo)
    visit.answer()
    visit.page.click('#model input')
    visit.page.get_by_role('option', name='resnet10t (timms.pth)').click()
    expect(visit.page.get_by_text('has no re-weighting, and so no maps.')).to_be_visible()


def test_a_bad_file_is_answered_in_words(visit, photo, tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'Hello.')
    visit.upload(tmp_path / 'bad.png')
    expect(visit.page.get_by_text('This file is not an image that can be read here')).to_be_visible()
    assert 'Traceback' not in visit.page.content()


def test_many_images(visit, photo, tmp_path):
    (tmp_path / 'bad.png').write_bytes(b'Hello.')
    visit.tab('Many images')
    visit.page.set_input_files('#files input[type=file]', [photo, tmp_path / 'bad.png'])
    expect(visit.page.locator('#files')).to_contain_text('bad')
    visit.page.click('#classify-all')
    expect(visit.page.locator('#table')).to_contain_text('cat')
    expect(visit.page.locator('#csv')).to_contain_text('predictions')
    link = visit.page.locator('#csv a[href*="predictions.csv"]').first.get_attribute('href')
    with urllib.request.urlopen(link) as answer:
        lines = answer.read().decode().splitlines()
    assert lines[1].startswith('photo.png,cat,') and 'This file is not an image' in lines[2]


def test_two_visitors_at_once(browser, address, photo, tmp_path):
    Image.fromarray(np.full((64, 64, 3), (135, 206, 235), np.uint8)).save(tmp_path / 'sky.png')
    first, second = Visit(browser, address), Visit(browser, address)
    first.upload(photo)
    second.upload(tmp_path / 'sky.png')
    (found,) = predict(SHIPPED, tmp_path / 'sky.png', workers=0, device='cpu')
    assert first.answer() == 'cat' != second.answer() == found.classes[0].name
    for visitor in (first, second):
        assert not visitor.complaints
        visitor.page.close()


def test_with_the_keyboard_alone(visit):
    """Tab to a photograph, Enter; then on to the tabs."""
    visit.page.wait_for_load_state('networkidle')
    focused = '(document.activeElement.innerText || document.activeElement.ariaLabel || "").trim()'
    for _ in range(40):
        visit.page.keyboard.press('Tab')
        if visit.page.evaluate(focused) == 'cat':
            break
    assert visit.page.evaluate(focused) == 'cat'
    visit.page.keyboard.press('Enter')
    assert visit.answer() == 'cat'
    for _ in range(40):
        visit.page.keyboard.press('Tab')
        if visit.page.evaluate(focused) == 'Statistics':
            break
    visit.page.keyboard.press('Enter')
    expect(visit.page.locator('#draw')).to_be_visible()


def test_upload_with_the_keyboard(visit, photo):
    button = visit.page.get_by_role('button', name=re.compile('Upload|Drop', re.IGNORECASE)).first
    for attempt in range(5):  # the page may not listen yet
        for _ in range(20):
            if button.evaluate('button => button === document.activeElement'):
                break
            visit.page.keyboard.press('Tab')
        try:
            with visit.page.expect_file_chooser(timeout=5000) as chooser:
                visit.page.keyboard.press('Enter')
            break
        except TimeoutError:
            assert attempt < 4, 'Enter opens no file chooser'
    chooser.value.set_files(photo)
    assert visit.answer() == 'cat'


def test_on_a_narrow_screen(browser, address, photo):
    visitor = Visit(browser, address, width=400)
    visitor.upload(photo)
    assert visitor.answer() == 'cat'
    expect(visitor.page.locator('#maps')).to_contain_text('product')
    assert visitor.page.evaluate('document.documentElement.scrollWidth') <= 400
    assert not visitor.complaints
    visitor.page.close()
