#include <cstring>
#include <sstream>

#include "module.hpp"

namespace emulator {
namespace {

typedef std::string Text;

const char* const BLANKS = " \t\r";

Text stripped(const Text& text) {
    const size_t first = text.find_first_not_of(BLANKS), last = text.find_last_not_of(BLANKS);
    return first == Text::npos ? "" : text.substr(first, last - first + 1);
}

bool begins(const Text& text, const Text& with) { return text.compare(0, with.size(), with) == 0; }

std::vector<Text> split(const Text& text, char at) {
    std::vector<Text> parts;
    std::stringstream stream(text);
    for (Text part; std::getline(stream, part, at);) parts.push_back(stripped(part));
    return parts;
}

// The bytes of a type such as "u64", or 0 where it has no such size.
int size_of(const Text& type) {
    const int count = type.size() > 1 && strchr("busf", type[0]) ? atoi(type.c_str() + 1) : 0;
    return count == 8 || count == 16 || count == 32 || count == 64 ? count / 8 : 0;
}

class Parser {
public:
    explicit Parser(Module& made) : module(made) {}

    void parse(const char* text) {
        std::stringstream stream(text);
        for (Text line; std::getline(stream, line);) {
            module.lines.push_back(stripped(line));
            line = stripped(line.substr(0, line.find("//")));
            if (line.empty()) continue;
            if (!kernel) outside(line);
            else if (!inside_body) head(line);
            else body(line);
        }
        if (kernel) refuse("the text ends within a kernel");
    }

private:
    Module& module;
    Kernel* kernel = nullptr;                // the one that is read
    bool inside_body = false;
    std::map<Text, int> registers, parameters;
    std::map<Text, size_t> labels;
    std::map<Bits, int> constants;           // registers of numbers
    std::vector<std::pair<size_t, Text>> branches;

    [[noreturn]] void refuse(const Text& why) {
        throw std::runtime_error(why + " (PTX line " + std::to_string(module.lines.size()) + ": " +
                                 (module.lines.empty() ? "" : module.lines.back()) + ")");
    }

    void require(bool holds, const char* what) {
        if (!holds) refuse(what);
    }

    // ---- lines

    void outside(const Text& line) {
        const size_t entry = line.find(".entry ");
        if (entry != Text::npos) {
            const Text name = stripped(line.substr(entry + 7, line.find('(') - entry - 7));
            kernel = &module.kernels[name];
            kernel->name = name;
            inside_body = false;
            registers.clear(), parameters.clear(), labels.clear(), constants.clear(), branches.clear();
        } else if (line.find(".shared") != Text::npos || line.find(".const") != Text::npos) {
            variable(line);
        } else if (!begins(line, ".version") && !begins(line, ".target") && !begins(line, ".address_size") &&
                   !begins(line, ".common")) {       // Numba's own, which no kernel reads: its name is no operand here
            refuse("nothing like this is known outside of a kernel");
        }
    }

    void head(const Text& line) {
        if (begins(line, ".param")) {
            require(line.find(".u64") != Text::npos, "a parameter has 64 bits");
            Text name = line.substr(line.find_last_of(BLANKS) + 1);
            if (name.back() == ',') name.pop_back();
            parameters[name] = kernel->parameters.size();
            kernel->parameters.push_back(-1);
        } else if (line == "{") {
            inside_body = true;
        } else if (line != ")") {
            refuse("nothing like this is known in the head of a kernel");
        }
    }

    void body(const Text& line) {
        if (line == "}") {
            for (const auto& [place, label] : branches) {
                require(labels.count(label), "a branch of this kernel has no target");
                kernel->code[place].target = labels[label];
            }
            kernel->code.push_back({Action::Return});
            kernel = nullptr;
        } else if (line.back() == ':') {
            labels[line.substr(0, line.size() - 1)] = kernel->code.size();
        } else if (!begins(line, ".reg ") && !begins(line, ".pragma")) {
            require(line.back() == ';' && line[0] != '.', "nothing like this is known in a kernel");
            kernel->code.push_back(instruction(line.substr(0, line.size() - 1)));
        }
    }

    // An array of shared or constant memory: ".shared .align 4 .b8 name[64];", for constants with "= {1, 2}".
    void variable(const Text& line) {
        const size_t bracket = line.find('[');
        require(bracket != Text::npos, "a variable is an array");
        const size_t named = line.find_last_of(BLANKS, bracket) + 1;
        const Text name = line.substr(named, bracket - named);
        const Text type = stripped(line.substr(0, named));
        const int element = size_of(type.substr(type.rfind('.') + 1));
        const size_t size = element * strtoull(line.c_str() + bracket + 1, nullptr, 10);
        require(size > 0, "an array has elements of a size that is known");
        if (type.find(".shared") == Text::npos) {
            module.constants[name] = {numbers(line, element, size), size};
            return;
        }
        require(line.find('{') == Text::npos, "shared memory has no numbers to begin with");
        const size_t aligned = type.find(".align");
        const Bits align = aligned == Text::npos ? element : strtoull(type.c_str() + aligned + 6, nullptr, 10);
        module.shared[name] = (module.shared_end + align - 1) / align * align;
        module.shared_end = module.shared[name] + size;
    }

    std::unique_ptr<char[]> numbers(const Text& line, int element, size_t size) {
        auto made = std::make_unique<char[]>(size);          // zeros, where fewer are given
        const size_t from = line.find('{'), to = line.find('}');
        if (from == Text::npos) return made;
        size_t place = 0;
        for (const Text& number : split(line.substr(from + 1, to - from - 1), ',')) {
            const Bits value = number[0] == '-' ? strtoll(number.c_str(), nullptr, 0) : strtoull(number.c_str(), nullptr, 0);
            require(place + element <= size, "there are more numbers than elements");
            memcpy(made.get() + place, &value, element);
            place += element;
        }
        return made;
    }

    // ---- operands

    int fresh(int& place) {
        if (place < 0) place = kernel->registers++;
        return place;
    }

    int register_of(const Text& name) {
        require(name[0] == '%' && name.find('.') == Text::npos, "a register has a plain name");
        return fresh(registers.emplace(name, -1).first->second);
    }

    int constant(Bits value) {
        const auto [found, is_new] = constants.emplace(value, -1);
        fresh(found->second);
        if (is_new) kernel->constants.push_back({found->second, value});
        return found->second;
    }

    int operand(const Text& text) {
        static const std::map<Text, Special> specials = {
            {"%tid.x", THREAD}, {"%ntid.x", THREADS}, {"%ctaid.x", BLOCK}, {"%nctaid.x", BLOCKS}};
        const auto special = specials.find(text);
        if (special != specials.end()) return fresh(kernel->special[special->second]);
        if (begins(text, "%")) return register_of(text);
        if (begins(text, "0f") || begins(text, "0d")) return constant(strtoull(text.c_str() + 2, nullptr, 16));
        if (begins(text, "-")) return constant(strtoll(text.c_str(), nullptr, 0));
        if (isdigit(text[0])) return constant(strtoull(text.c_str(), nullptr, 0));
        if (module.shared.count(text)) return constant(module.shared[text]);
        const auto found = module.constants.find(text);
        require(found != module.constants.end(), "an operand is not known");
        return constant(Bits(found->second.bytes.get()));
    }

    void address(const Text& text, Instruction& made) {
        require(text.size() > 2 && text[0] == '[' && text.back() == ']', "an address stands in brackets");
        const Text inside = text.substr(1, text.size() - 2);
        const size_t plus = inside.find('+');
        made.a = operand(stripped(inside.substr(0, plus)));
        made.offset = plus == Text::npos ? 0 : strtoll(inside.c_str() + plus + 1, nullptr, 0);
    }

    // ---- instructions

    Instruction instruction(Text line) {
        Instruction made{Action::Compute};
        made.line = module.lines.size();
        if (line[0] == '@') {
            const size_t blank = line.find_first_of(BLANKS);
            made.unless = line[1] == '!';
            made.predicate = register_of(line.substr(1 + made.unless, blank - 1 - made.unless));
            line = stripped(line.substr(blank));
        }
        const size_t blank = line.find_first_of(BLANKS);
        const Text name = line.substr(0, blank);
        const std::vector<Text> words = split(name, '.');
        const std::vector<Text> given = blank == Text::npos ? std::vector<Text>{} : split(line.substr(blank), ',');
        if (words[0] == "bra") {
            require(given.size() == 1, "a branch has one target");
            made.action = Action::Branch;
            branches.push_back({kernel->code.size(), given[0]});
        } else if (name == "ret") {
            made.action = Action::Return;
        } else if (name == "bar.sync") {
            require(given.size() == 1 && given[0] == "0", "all threads of a block meet at one barrier");
            made.action = Action::Barrier;
        } else if (begins(name, "ld.param.")) {
            parameter(given, made);
        } else if (words[0] == "ld" || words[0] == "st") {
            access(words, given, made);
        } else if (words[0] == "atom" || words[0] == "red") {
            atomic(words, given, made);
        } else {
            computation(name == "cvta.to.global.u64" ? "mov.u64" : name, given, made);    // addresses are the same
        }
        return made;
    }

    void computation(const Text& name, const std::vector<Text>& given, Instruction& made) {
        made.compute = operation(name);
        require(made.compute, "an instruction is not known");
        require(given.size() >= 2 && given.size() <= 4, "an instruction has one to three operands");
        made.to = register_of(given[0]);
        made.a = operand(given[1]);
        made.b = given.size() > 2 ? operand(given[2]) : made.a;
        made.c = given.size() > 3 ? operand(given[3]) : made.a;
    }

    void parameter(const std::vector<Text>& given, Instruction& made) {
        require(given.size() == 2, "a parameter is loaded into one register");
        const auto found = parameters.find(given[1].substr(1, given[1].size() - 2));
        require(found != parameters.end(), "a parameter is not known");
        made.compute = operation("mov.u64");
        made.to = register_of(given[0]);
        made.a = made.b = made.c = fresh(kernel->parameters[found->second]);
    }

    void access(const std::vector<Text>& words, const std::vector<Text>& given, Instruction& made) {
        const bool loads = words[0] == "ld";
        const bool plain = words.size() == 3 || (loads && words.size() == 4 && words[2] == "nc");
        require(plain && given.size() == 2, "an access of this kind is not known");
        made.action = loads ? Action::Load : Action::Store;
        made.space = space(words[1]);
        made.size = size_of(words.back());
        made.is_signed = words.back()[0] == 's';
        require(made.size > 0, "an access has a type that is known");
        address(given[loads ? 1 : 0], made);
        if (loads) made.to = register_of(given[0]);
        else made.b = operand(given[1]);
    }

    void atomic(const std::vector<Text>& words, const std::vector<Text>& given, Instruction& made) {
        const bool answers = words[0] == "atom";
        const Text& type = words.back();
        require(words.size() >= 4 && given.size() == 2u + answers, "an atomic access of this kind is not known");
        made.action = Action::Atomic;
        made.space = space(words[1]);
        made.size = size_of(type);
        made.compute = operation(words[words.size() - 2] + "." + type);
        require(made.compute && made.space == Space::Global, "an atomic access of this kind is not known");
        made.to = answers ? register_of(given[0]) : kernel->registers++;
        address(given[answers], made);
        made.b = operand(given[answers + 1]);
    }

    Space space(const Text& name) {
        static const std::map<Text, Space> spaces = {
            {"global", Space::Global}, {"shared", Space::Shared}, {"const", Space::Constant}};
        require(spaces.count(name), "memory of this kind is not known");
        return spaces.at(name);
    }
};

}  // namespace

std::shared_ptr<Module> parse(const char* text) {
    auto made = std::make_shared<Module>();
    made->shared_end = SHARED_BEGINS;
    Parser(*made).parse(text);
    return made;
}

}  // namespace emulator
