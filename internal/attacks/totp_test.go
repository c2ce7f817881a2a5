package attacks_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"gatehouse/audit"
	"gatehouse/internal/gatewaytest"
	"gatehouse/problem"
	"gatehouse/store"
	"gatehouse/store/redisstore"
)

// codeAt is the code of a time step before or after the current one.
func (g *target) codeAt(seed string, steps int) string {
	g.t.Helper()
	code, err := totp.GenerateCode(seed, g.Clock.Now().Add(time.Duration(steps)*30*time.Second))
	if err != nil {
		g.t.Fatal(err)
	}
	return code
}

// A code that was used is used: in the same browser, in another, at the other gateway, within the leeway, and so are those before.
func TestTP01_aCodeIsGoodOnce(t *testing.T) {
	t.Parallel()
	one, other, _ := pair(t)
	seed := one.enrolled("alice")
	earlier, code := one.codeAt(seed, -1), one.Code(seed)
	b := one.next()
	signedIn(t, "first use", b.Login("alice", gatewaytest.Password, code))
	refused(t, "same browser", b.Login("alice", gatewaytest.Password, code), problem.CodeInvalid)
	refused(t, "another browser", one.next().Login("alice", gatewaytest.Password, code), problem.CodeInvalid)
	refused(t, "the other gateway", other.next().Login("alice", gatewaytest.Password, code), problem.CodeInvalid)
	refused(t, "the step before", other.next().Login("alice", gatewaytest.Password, earlier), problem.CodeInvalid)
	if reason := other.last().Trace.Of(audit.StepSecondFactor).Reason; reason != audit.ReasonCodeUsed {
		t.Errorf("the log says %q", reason)
	}
	one.Clock.Add(30 * time.Second)
	challenge := other.next().Login("alice", gatewaytest.Password, "").Field("challenge")
	refused(t, "within the leeway", one.next().JSON(loginPath, map[string]string{"challenge": challenge, "code": code}), problem.CodeInvalid)
	one.reset("alice")
	signedIn(t, "the next code", other.next().Login("alice", gatewaytest.Password, one.Code(seed)))
}

// Fifty show the same right code in the same moment, behind fifty challenges, at two gateways.
func TestTP02_ofFiftyUsesAtOnceOneWins(t *testing.T) {
	t.Parallel()
	const uses = 50
	one, other, _ := pair(t)
	seed := one.enrolled("alice")
	browsers := []*gatewaytest.Browser{one.NewBrowser(), other.NewBrowser()}
	for round := range rounds(2, 100) {
		one.Clock.Add(30 * time.Second)
		challenges := make([]string, uses)
		for i := range challenges {
			b := browsers[i%2].At(fmt.Sprintf("10.20.%d.%d", round, i))
			challenges[i] = b.Login("alice", gatewaytest.Password, "").Field("challenge")
			if challenges[i] == "" {
				t.Fatal("no challenge")
			}
		}
		code := one.Code(seed)
		codes := volley(t, uses, func(i int) shot {
			body := fmt.Sprintf(`{"challenge":%q,"code":%q}`, challenges[i], code)
			return shot{[]*target{one, other}[i%2], fmt.Sprintf("10.20.%d.%d", round, i), body}
		}, nil)
		if codes[""] != 1 {
			t.Fatalf("round %d: %v, want one signed in", round, codes)
		}
		if codes[problem.CodeInvalid] > 5 {
			t.Errorf("round %d: %v, want at most five checked and refused", round, codes)
		}
		sessions, err := one.Admin.Sessions(t.Context(), "alice")
		if err != nil || len(sessions) != round+1 {
			t.Errorf("round %d: %d sessions, %v", round, len(sessions), err)
		}
		one.reset("alice")
	}
}

// It is the step that is used, not its text; and nothing but six ASCII digits is a code. Only the form forgives blanks, which
// apps show.
func TestTP03_aUsedCodeHasNoOtherSpelling(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	used := g.Code(seed)
	signedIn(t, "first use", g.next().Login("alice", gatewaytest.Password, used))
	for _, text := range spellingsOf(used) {
		refused(t, fmt.Sprintf("used, %+q", text), g.next().Login("alice", gatewaytest.Password, text), problem.CodeInvalid)
		if answer := g.formCode("alice", text); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("used, %+q in the form: %d", text, answer.StatusCode)
		}
		g.reset("alice")
	}
	g.Clock.Add(time.Minute)
	fresh := g.Code(seed)
	for _, text := range spellingsOf(fresh) {
		refused(t, fmt.Sprintf("fresh, %+q", text), g.next().Login("alice", gatewaytest.Password, text), problem.CodeInvalid)
		g.reset("alice")
	}
	if answer := g.formCode("alice", " "+fresh[:3]+" "+fresh[3:]+" "); answer.StatusCode != http.StatusSeeOther {
		t.Errorf("blanks of an app in the form: %d", answer.StatusCode)
	}
}

// spellingsOf is what a lenient reader would take for the code.
func spellingsOf(code string) []string {
	digits := func(zero rune) string { return strings.Map(func(c rune) rune { return c - '0' + zero }, code) }
	return []string{
		" " + code, code + " ", code[:3] + " " + code[3:], "\t" + code, code + "\n", code + "\x00", "+" + code, "-" + code, "0" + code, "0x" + code, code + ".0",
		digits('０'), digits('٠'),
	}
}

// formCode signs in by the pages.
func (g *target) formCode(name, code string) gatewaytest.Answer {
	g.t.Helper()
	b := g.next()
	if answer := b.Password(name, gatewaytest.Password); answer.StatusCode != http.StatusSeeOther {
		g.t.Fatalf("password: %d", answer.StatusCode)
	}
	return b.Submit("/.gatehouse/login/code", url.Values{"code": {code}})
}

// Somebody who knows the password begins a hundred logins from as many addresses, each with three codes to try.
func TestTP04_newLoginsBringNoNewCodes(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	owner := g.next()
	signedIn(t, "the owner", owner.Login("alice", gatewaytest.Password, g.Code(seed)))
	g.Clock.Add(time.Minute)
	checked := 0
	for range rounds(15, 100) {
		thief := g.next()
		challenge := thief.Login("alice", gatewaytest.Password, "").Field("challenge")
		for range 3 {
			answer := thief.JSON(loginPath, map[string]string{"challenge": challenge, "code": "000000"})
			if answer.ProblemCode() == string(problem.CodeInvalid) {
				checked++
				continue
			}
			refused(t, "behind five", answer, problem.Locked)
		}
	}
	if checked != 5 {
		t.Errorf("%d codes were checked, want 5", checked)
	}
	code := g.Code(seed)
	refused(t, "the right code at once", g.next().Login("alice", gatewaytest.Password, code), problem.Locked)
	r := g.last()
	if step := r.Trace.Of(audit.StepSecondFactor); r.Code != string(problem.Locked) || step.Reason != audit.ReasonCodesLocked {
		t.Errorf("the log does not tell that somebody has the password: %s, %+v", r.Code, step)
	}
	if n := g.wrongPasswords("alice"); n != 0 {
		t.Errorf("%d wrong passwords are counted", n)
	}
	if n := g.wrongCodes("alice"); n != 5 {
		t.Errorf("%d wrong codes are counted, want 5", n)
	}
	signedIn(t, "the owner meanwhile, with a code that nobody used up", owner.Login("alice", gatewaytest.Password, code))
	g.Clock.Add(15 * time.Minute)
	signedIn(t, "a stranger with the right code 15 minutes later", g.next().Login("alice", gatewaytest.Password, g.Code(seed)))
}

// One step either way is accepted, by the gateway's clock and no other.
func TestTP06_oneStepEitherWay(t *testing.T) {
	t.Parallel()
	g := start(t)
	for step := -3; step <= 3; step++ {
		name := fmt.Sprintf("user%+d", step) // nobody else used a later step
		seed := g.enrolled(name)
		b := g.next()
		b.Header = http.Header{
			"Date":        {g.Clock.Now().Add(time.Duration(step) * 30 * time.Second).Format(http.TimeFormat)},
			"X-Timestamp": {fmt.Sprint(g.Clock.Now().Add(time.Duration(step) * 30 * time.Second).Unix())},
		}
		answer := b.Login(name, gatewaytest.Password, g.codeAt(seed, step))
		if step >= -1 && step <= 1 {
			signedIn(t, name, answer)
		} else {
			refused(t, name, answer, problem.CodeInvalid)
		}
		body := map[string]any{"username": name, "password": gatewaytest.Password, "code": g.codeAt(seed, step), "time": g.Clock.Now().Unix()}
		refused(t, name+" with a time of its own", b.JSON(loginPath, body), problem.BadRequest)
	}
}

func TestTP08_aCodeIsSixDigitsInAString(t *testing.T) {
	t.Parallel()
	g := start(t)
	seed := g.enrolled("alice")
	code := g.Code(seed)
	for _, text := range []string{"0", "00000", code[:5], code + "0", "0" + code, code + code[:2], code + code, strings.Repeat("0", 10_000), "1e5", "-12345", "０００００0", "null"} {
		refused(t, fmt.Sprintf("%.20q", text), g.next().Login("alice", gatewaytest.Password, text), problem.CodeInvalid)
		g.reset("alice")
	}
	pass, _ := json.Marshal(gatewaytest.Password)
	before := g.Verifications()
	for _, value := range []string{code, `""`, `["` + code + `"]`, `{"code":"` + code + `"}`, `1e5`, `-1`, `true`, `"` + strings.Repeat("0", 1_000_000) + `"`} {
		want := problem.BadRequest
		if len(value) > 1000 {
			want = problem.TooLarge
		}
		for _, first := range []string{`"username":"alice","password":` + string(pass), `"challenge":"` + strings.Repeat("A", 52) + `"`} {
			answer := g.next().Do(http.MethodPost, loginPath, strings.NewReader(`{`+first+`,"code":`+value+`}`), http.Header{"Content-Type": {"application/json"}})
			refused(t, fmt.Sprintf("%.20s", value), answer, want)
		}
	}
	if ran := g.Verifications() - before; ran != 0 {
		t.Errorf("%d verifications ran for what is no code", ran)
	}
	null := `{"username":"alice","password":` + string(pass) + `,"code":null}`
	answer := g.next().Do(http.MethodPost, loginPath, strings.NewReader(null), http.Header{"Content-Type": {"application/json"}})
	refused(t, "null", answer, problem.CodeRequired)
	if n := g.wrongCodes("alice"); n != 0 {
		t.Errorf("%d wrong codes are counted for what is no code", n)
	}
	signedIn(t, "the code itself", g.next().Login("alice", gatewaytest.Password, code))
}

// Who can write to the store cannot move a seed to another account, nor make one account look as if it had none.
func TestTP16_aMovedOrAlteredSeedIsRefused(t *testing.T) {
	t.Parallel()
	g, s := startOnRedis(t, optionalFactor)
	g.AddUser("bob")
	ids := map[string]string{"alice": "", "bob": ""}
	aliceSeed := g.enrolled("alice")
	for name := range ids {
		u, err := g.Admin.User(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = u.ID
	}
	db, err := redisstore.Open(t.Context(), redisstore.Options{URL: s.URL(), Now: g.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	get := func(name string) store.Record {
		t.Helper()
		r, err := db.Get(t.Context(), store.UserKey(ids[name]))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	put := func(name string, value []byte) {
		t.Helper()
		if _, err := db.Put(t.Context(), store.UserKey(ids[name]), value, get(name).Version, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	alice, bob := get("alice").Value, get("bob").Value
	altered := func(value []byte, i int) []byte {
		changed := append([]byte(nil), value...)
		changed[i] ^= 1
		return changed
	}
	tampered := map[string][]byte{
		"alice's record": alice, "a flipped bit": altered(bob, len(bob)/2), "a flipped first bit": altered(bob, 0), "a flipped last bit": altered(bob, len(bob)-1),
		"half of it": bob[:len(bob)/2], "nothing": {}, "plain text": []byte(`{"id":"` + ids["bob"] + `","name":"bob"}`),
	}
	for what, value := range tampered {
		put("bob", value)
		for _, code := range []string{"", g.Code(aliceSeed)} {
			refused(t, what, g.next().Login("bob", gatewaytest.Password, code), problem.Unavailable)
		}
	}
	if ran := g.Verifications(); ran != 0 {
		t.Errorf("%d verifications ran against what cannot be read", ran)
	}
	put("alice", bob) // an account without a factor in place of one that has one
	refused(t, "bob's record in place of alice's", g.next().Login("alice", gatewaytest.Password, ""), problem.Unavailable)
	put("alice", alice)
	put("bob", bob)
	refused(t, "alice's own record", g.next().Login("alice", gatewaytest.Password, ""), problem.CodeRequired)
	signedIn(t, "bob's own record", g.next().Login("bob", gatewaytest.Password, ""))
	g.Stop()
	var told int64
	for _, r := range g.Records() {
		if r.Kind == audit.KindStateRefused && r.Severity == audit.High {
			told += r.Count
		}
	}
	if want := int64(2*len(tampered) + 1); told != want {
		t.Errorf("the log tells of %d records that did not open, want %d", told, want)
	}
}
