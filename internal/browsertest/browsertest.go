// Package browsertest drives Debian's Chromium over the pages of Gatehouse, for tests.
//
// A Browser is one Chromium process with a fresh profile that talks to nobody but the pages it is sent to. A Tab has cookies of
// its own. What a Tab cannot do fails the test; nothing is retried and nothing sleeps: a Tab waits for the load of a page.
package browsertest

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// axe is axe-core 4.14.1 by Deque Systems, under the Mozilla Public License 2.0; see axe/LICENSE. It is part of tests only.
//
//go:embed axe/axe.min.js
var axe string

// patience is how long one step of a Tab may take on a machine with two busy cores.
const patience = 20 * time.Second

// Browser is a running Chromium.
type Browser struct{ ctx context.Context }

// Start runs Chromium until the test ends. Each rule is one of --host-resolver-rules, as in "MAP localhost:8080 127.0.0.1:4711": the
// page is then at the one address for people, and at the other for the network.
func Start(t testing.TB, rules ...string) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("there is no Chromium: install the Debian package chromium (make deps)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", true),
	)
	if len(rules) > 0 {
		options = append(options, chromedp.Flag("host-resolver-rules", strings.Join(rules, ",")))
	}
	if os.Getuid() == 0 { // the sandbox needs another user
		options = append(options, chromedp.NoSandbox)
	}
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancelAllocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("end chromium: %v", err)
		}
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return &Browser{ctx}
}

// Look is how a Tab shows pages. The zero Look is a light one of 1024 by 768 with scripts, in English.
type Look struct {
	Width, Height int
	// Zoom is 2 for 200 %: the page then has half as many CSS pixels in each direction, which is what zooming does.
	Zoom      int
	Dark      bool
	NoScripts bool
	Language  string // Accept-Language
}

// String names the look in a test's name.
func (l Look) String() string {
	l = l.filled()
	words := []string{fmt.Sprintf("%dx%d", l.Width, l.Height), "light"}
	if l.Dark {
		words[1] = "dark"
	}
	if l.Zoom > 1 {
		words = append(words, fmt.Sprintf("%d%%", 100*l.Zoom))
	}
	if l.NoScripts {
		words = append(words, "no scripts")
	}
	return strings.Join(append(words, l.Language), ", ")
}

func (l Look) filled() Look {
	if l.Width == 0 {
		l.Width = 1024
	}
	if l.Height == 0 {
		l.Height = 768
	}
	l.Zoom = max(1, l.Zoom)
	if l.Language == "" {
		l.Language = "en"
	}
	return l
}

// Tab is one tab in a browser context of its own. It belongs to one goroutine.
type Tab struct {
	t    testing.TB
	ctx  context.Context
	look Look
}

// NewTab opens a tab until the test ends.
func (b *Browser) NewTab(t testing.TB, look Look) *Tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as the context of its first step, which so has no deadline
		t.Fatalf("open a tab: %v", err)
	}
	tab := &Tab{t: t, ctx: ctx}
	tab.Show(look)
	return tab
}

// Again is the same tab for another test, without cookies and with an empty page: much cheaper than a new one. The former Tab must not
// be used any more.
func (tab *Tab) Again(t testing.TB, look Look) *Tab {
	t.Helper()
	next := &Tab{t: t, ctx: tab.ctx}
	call(next, network.ClearBrowserCookies, cdp.Empty{})
	next.do("open an empty page", chromedp.Navigate("about:blank"))
	next.Show(look)
	return next
}

// Show changes how the tab shows pages, from the next page on where it is about scripts or language.
func (tab *Tab) Show(look Look) {
	tab.t.Helper()
	look = look.filled()
	tab.look = look
	scheme := "light"
	if look.Dark {
		scheme = "dark"
	}
	call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(look.Width / look.Zoom), Height: int64(look.Height / look.Zoom), DeviceScaleFactor: float64(look.Zoom),
	})
	call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: look.NoScripts})
	call(tab, network.Enable, network.EnableParams{})
	call(tab, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": look.Language}})
}

// Look is how the tab shows pages.
func (tab *Tab) Look() Look { return tab.look }

// call sends one command of the protocol.
func call[P, R any](tab *Tab, command cdp.Command[P, R], params P) R {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	if err != nil {
		tab.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}

// do runs steps.
func (tab *Tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tab.t.Fatalf("%s: %v", what, err)
	}
}

// Open goes to an address, follows its redirects, and returns the status of the page that it ends at.
func (tab *Tab) Open(url string) int {
	tab.t.Helper()
	return tab.arrive("open "+url, chromedp.Navigate(url))
}

// Click clicks on what a CSS selector finds first and returns the status of the page that this leads to.
func (tab *Tab) Click(selector string) int {
	tab.t.Helper()
	return tab.arrive("click "+selector, chromedp.Click(chromedp.CSS(selector)))
}

// Enter presses the Enter key where the focus is and returns the status of the page that this leads to.
func (tab *Tab) Enter() int {
	tab.t.Helper()
	return tab.arrive("press Enter", chromedp.KeyEvent("\r"))
}

func (tab *Tab) arrive(what string, step chromedp.Action[chromedp.Void]) int {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	answer, err := chromedp.RunResponse(ctx, step)
	if err != nil {
		tab.t.Fatalf("%s: %v", what, err)
	}
	tab.paint()
	return int(answer.Status)
}

// paint waits until the page is drawn: what is to have the focus gets it then, later than the load. A frame that a script could
// wait for never comes where scripts are off, so it takes a picture of one pixel.
func (tab *Tab) paint() {
	tab.t.Helper()
	call(tab, page.CaptureScreenshot, page.CaptureScreenshotParams{Clip: &page.Viewport{Width: 1, Height: 1, Scale: 1}})
}

// Type types where a CSS selector finds a field.
func (tab *Tab) Type(selector, text string) {
	tab.t.Helper()
	tab.do("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Press presses one key, such as "\t", where the focus is.
func (tab *Tab) Press(key string) {
	tab.t.Helper()
	tab.do("press a key", chromedp.KeyEvent(key))
}

// Paste puts text where the focus is in one go, as a password manager or the clipboard does.
func (tab *Tab) Paste(text string) {
	tab.t.Helper()
	call(tab, input.InsertText, input.InsertTextParams{Text: text})
}

// Eval is the value of a JavaScript expression, which also works where the page may run no scripts.
func Eval[T any](tab *Tab, expression string) T {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tab.t.Fatalf("evaluate %.80q: %v", expression, err)
	}
	return value
}

// Focused is what has the focus, as tag#id.
func (tab *Tab) Focused() string {
	tab.t.Helper()
	return Eval[string](tab, `document.activeElement.localName + (document.activeElement.id ? "#" + document.activeElement.id : "")`)
}

// Overflow is by how many CSS pixels the page is wider than the window.
func (tab *Tab) Overflow() int {
	tab.t.Helper()
	return Eval[int](tab, `document.documentElement.scrollWidth - document.documentElement.clientWidth`)
}

// Violations runs axe-core over the page, by the rules of WCAG 2.2 level AA and by axe's own best practices, and returns what it
// found, each with the elements it is about.
func (tab *Tab) Violations() []string {
	tab.t.Helper()
	// The protocol evaluates it, since the page's policy would forbid a script. Its timers stand still where scripts are off, so
	// they are on meanwhile. It may not preload style sheets, for which the page's policy leaves it no way.
	call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: false})
	defer call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: tab.look.NoScripts})
	if !Eval[bool](tab, `"axe" in window`) {
		Eval[bool](tab, axe+"\n;true")
	}
	return Eval[[]string](tab, `axe.run(document, {preload: false, runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then(
		r => r.violations.map(v => v.id + ": " + v.help + " at " + v.nodes.map(n => n.target.join(" ") + " " + n.failureSummary).join("; ")))`)
}

// Screenshot is the whole page as a PNG.
func (tab *Tab) Screenshot() []byte {
	tab.t.Helper()
	yes := true
	return call(tab, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng, CaptureBeyondViewport: &yes}).Data
}
