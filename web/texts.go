package web

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
)

//go:embed texts/*.json
var ownTexts embed.FS

// maxAcceptLanguage is how much of an Accept-Language header is read, in bytes.
const maxAcceptLanguage = 256

// maxTexts is the largest file of texts that is read, in bytes.
const maxTexts = 256 << 10

// texts is what the pages say, in every language that there is. It does not change once it is loaded.
type texts struct {
	speeches []*speech // in the matcher's order: the one for readers who ask for none of them comes first
	matcher  language.Matcher
}

// speech is one language. Templates call its methods.
type speech struct {
	Lang      string // BCP 47
	Dir       string // ltr or rtl
	localizer *i18n.Localizer
}

// message is a text to be said in the reader's language: a key of the texts, and values for its places.
type message struct {
	key    string
	values map[string]any
}

// say makes a message. pairs are names and values in turn; the value of "Count" also chooses the plural.
func say(key string, pairs ...any) message {
	m := message{key: key, values: map[string]any{}}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.values[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}

// Say returns a message in this language. Values are put in as they are; the template that shows it escapes them.
func (s *speech) Say(m message) string {
	text, _ := s.localizer.Localize(&i18n.LocalizeConfig{MessageID: m.key, TemplateData: m.values, PluralCount: m.values["Count"]})
	if text == "" {
		return m.key // a key that no language has; TestTexts_areCompleteAndUsed finds it
	}
	return text
}

// T is Say for templates.
func (s *speech) T(key string, pairs ...any) string { return s.Say(say(key, pairs...)) }

// around is a text taken apart at one of its values, so that a page can emphasise the value wherever the language puts it.
type around struct{ Before, Value, After string }

// Around returns the text of a key, taken apart at the value of name. pairs are further values.
func (s *speech) Around(key, name, value string, pairs ...any) around {
	const mark = "\x00"
	before, after, _ := strings.Cut(s.Say(say(key, append(pairs, name, mark)...)), mark)
	return around{before, value, after}
}

// loadTexts reads our own texts and those of the operator, which add languages or replace single texts. first is the language
// for readers who ask for none that there is. The second result names texts that a language lacks; English stands in for them.
func loadTexts(first string, more fs.FS) (*texts, []string, error) {
	b := &textBundle{bundle: i18n.NewBundle(language.English), found: map[language.Tag]map[string]bool{}}
	if err := b.add(ownTexts, "texts"); err != nil {
		return nil, nil, err
	}
	if more != nil {
		if err := b.add(more, "."); err != nil {
			return nil, nil, err
		}
	}
	t, err := b.texts(first)
	return t, b.missing(), err
}

// textBundle is the texts while they are being read. English comes first and says which keys there are, and which values each
// of them may use.
type textBundle struct {
	bundle *i18n.Bundle
	values map[string]map[string]bool
	found  map[language.Tag]map[string]bool
}

func (b *textBundle) add(files fs.FS, dir string) error {
	names, err := fs.Glob(files, path.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	slices.SortFunc(names, func(x, y string) int { // English first, then by name
		return strings.Compare(strings.TrimSuffix(path.Base(x), "en.json"), strings.TrimSuffix(path.Base(y), "en.json"))
	})
	for _, name := range names {
		if err := b.file(files, name); err != nil {
			return fmt.Errorf("read texts %s: %w", path.Base(name), err)
		}
	}
	return nil
}

func (b *textBundle) file(files fs.FS, name string) error {
	tag, err := language.Parse(strings.TrimSuffix(path.Base(name), ".json"))
	if err != nil {
		return errors.New("the name must be a language, as in fr.json or pt-BR.json")
	}
	if info, err := fs.Stat(files, name); err != nil {
		return err
	} else if !info.Mode().IsRegular() { // reading a pipe would wait, and stop every reload that follows
		return errors.New("is no regular file")
	}
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return err
	}
	if len(data) > maxTexts {
		return fmt.Errorf("has more than %d bytes", maxTexts)
	}
	parsed, err := i18n.ParseMessageFileBytes(data, name, nil)
	if err != nil {
		return err
	}
	if b.values == nil {
		b.values = placesOf(parsed.Messages)
	}
	if b.found[tag] == nil {
		b.found[tag] = map[string]bool{}
	}
	for _, m := range parsed.Messages {
		if err := b.check(m); err != nil {
			return err
		}
		b.found[tag][m.ID] = true
	}
	return b.bundle.AddMessages(tag, parsed.Messages...)
}

// place is where a value goes in a text. Texts are templates to the library; this is all of the template language they may use.
var place = regexp.MustCompile(`\{\{\.(\w+)\}\}`)

// placesOf is the values that each text uses.
func placesOf(messages []*i18n.Message) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, m := range messages {
		all[m.ID] = map[string]bool{}
		for _, form := range forms(m) {
			for _, found := range place.FindAllStringSubmatch(form, -1) {
				all[m.ID][found[1]] = true
			}
		}
	}
	return all
}

// check refuses a text that no page says, and one that would not come out as it reads.
func (b *textBundle) check(m *i18n.Message) error {
	allowed, known := b.values[m.ID]
	if !known {
		return fmt.Errorf("no page says %q", m.ID)
	}
	if m.Other == "" {
		return fmt.Errorf("%s is empty", m.ID)
	}
	for _, form := range forms(m) {
		rest := place.ReplaceAllStringFunc(form, func(p string) string {
			if allowed[place.FindStringSubmatch(p)[1]] {
				return ""
			}
			return p
		})
		if strings.Contains(rest, "{{") || strings.Contains(rest, "\x00") {
			return fmt.Errorf("%s may hold, in double braces, nothing but %v", m.ID, slices.Sorted(maps.Keys(allowed)))
		}
	}
	return nil
}

// forms is a text in all its plural forms.
func forms(m *i18n.Message) []string {
	return []string{m.Zero, m.One, m.Two, m.Few, m.Many, m.Other}
}

// texts makes the languages that were read ready for use.
func (b *textBundle) texts(first string) (*texts, error) {
	tag, err := language.Parse(first)
	if err != nil || b.found[tag] == nil {
		return nil, fmt.Errorf("there are no texts in language %q", first)
	}
	others := slices.SortedFunc(maps.Keys(b.found), func(x, y language.Tag) int { return strings.Compare(x.String(), y.String()) })
	tags := append([]language.Tag{tag}, slices.DeleteFunc(others, func(t language.Tag) bool { return t == tag })...)
	t := &texts{matcher: language.NewMatcher(tags)}
	for _, tag := range tags {
		t.speeches = append(t.speeches, &speech{Lang: tag.String(), Dir: direction(tag), localizer: i18n.NewLocalizer(b.bundle, tag.String())})
	}
	return t, nil
}

// direction is the one in which the language's usual script is written.
func direction(tag language.Tag) string {
	script, _ := tag.Script()
	switch script.String() {
	case "Adlm", "Arab", "Hebr", "Nkoo", "Rohg", "Syrc", "Thaa":
		return "rtl"
	}
	return "ltr"
}

func (b *textBundle) missing() []string {
	var list []string
	for tag, found := range b.found {
		for key := range b.values {
			if !found[key] {
				list = append(list, tag.String()+": "+key)
			}
		}
	}
	slices.Sort(list)
	return list
}

// choose returns the language for a request's Accept-Language (RFC 9110, section 12.5.4).
func (t *texts) choose(accept string) *speech {
	if len(accept) > maxAcceptLanguage {
		return t.speeches[0]
	}
	wanted, _, err := language.ParseAcceptLanguage(accept)
	if err != nil {
		return t.speeches[0]
	}
	_, i, _ := t.matcher.Match(wanted...)
	return t.speeches[i]
}
