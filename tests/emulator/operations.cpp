// Rules at the edges (shifts by too much, NaN, conversions out of range) are those of the PTX ISA's chapter on
// instructions; the order of operands is that of its syntax.
#include "operations.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <unordered_map>

namespace emulator {
namespace {

typedef std::unordered_map<std::string, Operation> Table;

template <class T>
T as(Bits held) {
    T value;
    memcpy(&value, &held, sizeof value);
    return value;
}

template <class T>
Bits bits(T value) {
    Bits held = 0;
    memcpy(&held, &value, sizeof value);
    return held;
}

template <class T>
constexpr unsigned width = 8 * sizeof(T);

template <class T>
void require_quotient(T a, T b) {
    if (b == 0) throw Undefined("division by zero");
    if (std::is_signed<T>::value && a == std::numeric_limits<T>::min() && b == T(-1)) {
        throw Undefined("a quotient that is out of range");
    }
}

// ---- integers ---------------------------------------------------------------------------------------------

// The low bits of sums and products are those of the operands' low bits: wide arithmetic, cut, wraps as it should.
template <class T>
void integers(Table& table, const std::string& type) {
    table["add." + type] = [](Bits a, Bits b, Bits) { return Bits(T(a + b)); };
    table["sub." + type] = [](Bits a, Bits b, Bits) { return Bits(T(a - b)); };
    table["mul.lo." + type] = [](Bits a, Bits b, Bits) { return Bits(T(a * b)); };
    table["mad.lo." + type] = [](Bits a, Bits b, Bits c) { return Bits(T(a * b + c)); };
    table["neg." + type] = [](Bits a, Bits, Bits) { return Bits(T(0 - a)); };
    table["abs." + type] = [](Bits a, Bits, Bits) { return Bits(T(as<T>(a) < 0 ? 0 - a : a)); };
    table["min." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) < as<T>(b) ? as<T>(a) : as<T>(b)); };
    table["max." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) > as<T>(b) ? as<T>(a) : as<T>(b)); };
    table["div." + type] = [](Bits a, Bits b, Bits) {
        require_quotient(as<T>(a), as<T>(b));
        return Bits(T(as<T>(a) / as<T>(b)));
    };
    table["rem." + type] = [](Bits a, Bits b, Bits) {
        require_quotient(as<T>(a), as<T>(b));
        return Bits(T(as<T>(a) % as<T>(b)));
    };
    table["shr." + type] = [](Bits a, Bits b, Bits) {        // by more than there are bits: by all of them
        const uint32_t count = as<uint32_t>(b);
        return Bits(count < width<T> ? T(as<T>(a) >> count) : as<T>(a) < 0 ? T(-1) : T(0));
    };
    table["mul.hi." + type] = [](Bits a, Bits b, Bits) {
        using Wide = std::conditional_t<std::is_signed<T>::value, __int128, unsigned __int128>;
        return Bits(T((Wide(as<T>(a)) * Wide(as<T>(b))) >> width<T>));
    };
    table["setp.eq." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) == as<T>(b)); };
    table["setp.ne." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) != as<T>(b)); };
    table["setp.lt." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) < as<T>(b)); };
    table["setp.le." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) <= as<T>(b)); };
    table["setp.gt." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) > as<T>(b)); };
    table["setp.ge." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) >= as<T>(b)); };
    if (std::is_unsigned<T>::value) {
        for (auto [also, name] : {std::pair("lo", "lt"), {"ls", "le"}, {"hi", "gt"}, {"hs", "ge"}}) {
            table[std::string("setp.") + also + "." + type] = table[std::string("setp.") + name + "." + type];
        }
    }
}

template <class T>
void wide_products(Table& table, const std::string& type) {
    table["mul.wide." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a)) * Bits(as<T>(b)); };
    table["mad.wide." + type] = [](Bits a, Bits b, Bits c) { return Bits(as<T>(a)) * Bits(as<T>(b)) + c; };
}

template <class U>
void bit_patterns(Table& table, const std::string& type) {
    table["and." + type] = [](Bits a, Bits b, Bits) { return Bits(U(a & b)); };
    table["or." + type] = [](Bits a, Bits b, Bits) { return Bits(U(a | b)); };
    table["xor." + type] = [](Bits a, Bits b, Bits) { return Bits(U(a ^ b)); };
    table["not." + type] = [](Bits a, Bits, Bits) { return Bits(U(~a)); };
    table["shl." + type] = [](Bits a, Bits b, Bits) {
        const uint32_t count = as<uint32_t>(b);
        return count < width<U> ? Bits(U(a << count)) : 0;
    };
    table["setp.eq." + type] = [](Bits a, Bits b, Bits) { return Bits(U(a) == U(b)); };
    table["setp.ne." + type] = [](Bits a, Bits b, Bits) { return Bits(U(a) != U(b)); };
}

template <class T>
void moves(Table& table, const std::string& type) {
    table["mov." + type] = [](Bits a, Bits, Bits) { return bits(as<T>(a)); };
    table["selp." + type] = [](Bits a, Bits b, Bits c) { return bits(as<T>(c & 1 ? a : b)); };
}

void predicates(Table& table) {
    table["and.pred"] = [](Bits a, Bits b, Bits) { return a & b & 1; };
    table["or.pred"] = [](Bits a, Bits b, Bits) { return (a | b) & 1; };
    table["xor.pred"] = [](Bits a, Bits b, Bits) { return (a ^ b) & 1; };
    table["not.pred"] = [](Bits a, Bits, Bits) { return ~a & 1; };
    table["mov.pred"] = [](Bits a, Bits, Bits) { return a & 1; };
}

// ---- floating point ---------------------------------------------------------------------------------------

// float32 has one NaN for all results; float64 keeps the operand's, as this processor does.
float result(float value) { return std::isnan(value) ? as<float>(0x7fffffff) : value; }
double result(double value) { return value; }

template <class T>
T smaller(T a, T b) {                // of a NaN and a number the number; of zeros the negative one
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) ? b : a;
    return a == b ? (std::signbit(a) ? a : b) : a < b ? a : b;
}

template <class T>
void arithmetic(Table& table, const std::string& type) {
    for (const std::string& rounded : {type, "rn." + type}) {
        table["add." + rounded] = [](Bits a, Bits b, Bits) { return bits(result(as<T>(a) + as<T>(b))); };
        table["sub." + rounded] = [](Bits a, Bits b, Bits) { return bits(result(as<T>(a) - as<T>(b))); };
        table["mul." + rounded] = [](Bits a, Bits b, Bits) { return bits(result(as<T>(a) * as<T>(b))); };
    }
    table["div.rn." + type] = [](Bits a, Bits b, Bits) { return bits(result(as<T>(a) / as<T>(b))); };
    table["rcp.rn." + type] = [](Bits a, Bits, Bits) { return bits(result(T(1) / as<T>(a))); };
    table["sqrt.rn." + type] = [](Bits a, Bits, Bits) { return bits(result(std::sqrt(as<T>(a)))); };
    table["fma.rn." + type] = [](Bits a, Bits b, Bits c) {
        return bits(result(std::fma(as<T>(a), as<T>(b), as<T>(c))));
    };
    table["min." + type] = [](Bits a, Bits b, Bits) { return bits(result(smaller(as<T>(a), as<T>(b)))); };
    table["max." + type] = [](Bits a, Bits b, Bits) { return bits(result(-smaller(-as<T>(a), -as<T>(b)))); };
    table["neg." + type] = [](Bits a, Bits, Bits) { return bits(-as<T>(a)); };
    table["abs." + type] = [](Bits a, Bits, Bits) { return bits(std::fabs(as<T>(a))); };
    table["copysign." + type] = [](Bits a, Bits b, Bits) { return bits(std::copysign(as<T>(b), as<T>(a))); };
    const std::string both = type + "." + type;
    table["cvt.rni." + both] = [](Bits a, Bits, Bits) { return bits(result(std::nearbyint(as<T>(a)))); };
    table["cvt.rzi." + both] = [](Bits a, Bits, Bits) { return bits(result(std::trunc(as<T>(a)))); };
    table["cvt.rmi." + both] = [](Bits a, Bits, Bits) { return bits(result(std::floor(as<T>(a)))); };
    table["cvt.rpi." + both] = [](Bits a, Bits, Bits) { return bits(result(std::ceil(as<T>(a)))); };
}

// With a "u" a comparison holds where an operand is NaN; "ne" is not the opposite of "eq", as neither holds there.
template <class T>
void comparisons(Table& table, const std::string& type) {
    table["setp.eq." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) == as<T>(b)); };
    table["setp.lt." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) < as<T>(b)); };
    table["setp.le." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) <= as<T>(b)); };
    table["setp.gt." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) > as<T>(b)); };
    table["setp.ge." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) >= as<T>(b)); };
    table["setp.ne." + type] = [](Bits a, Bits b, Bits) {
        return Bits(as<T>(a) < as<T>(b) || as<T>(a) > as<T>(b));
    };
    table["setp.equ." + type] = [](Bits a, Bits b, Bits) {
        return Bits(!(as<T>(a) < as<T>(b) || as<T>(a) > as<T>(b)));
    };
    table["setp.neu." + type] = [](Bits a, Bits b, Bits) { return Bits(as<T>(a) != as<T>(b)); };
    table["setp.ltu." + type] = [](Bits a, Bits b, Bits) { return Bits(!(as<T>(a) >= as<T>(b))); };
    table["setp.leu." + type] = [](Bits a, Bits b, Bits) { return Bits(!(as<T>(a) > as<T>(b))); };
    table["setp.gtu." + type] = [](Bits a, Bits b, Bits) { return Bits(!(as<T>(a) <= as<T>(b))); };
    table["setp.geu." + type] = [](Bits a, Bits b, Bits) { return Bits(!(as<T>(a) < as<T>(b))); };
    table["setp.nan." + type] = [](Bits a, Bits b, Bits) { return Bits(std::isunordered(as<T>(a), as<T>(b))); };
    table["setp.num." + type] = [](Bits a, Bits b, Bits) { return Bits(!std::isunordered(as<T>(a), as<T>(b))); };
}

// ---- conversions ------------------------------------------------------------------------------------------

// A register is as wide as a conversion needs: C++ extends a signed value by its sign, as PTX does.
template <class From>
void from_integer(Table& table, const std::string& type) {
    table["cvt.s8." + type] = [](Bits a, Bits, Bits) { return Bits(int8_t(as<From>(a))); };
    table["cvt.u8." + type] = [](Bits a, Bits, Bits) { return Bits(uint8_t(as<From>(a))); };
    table["cvt.s16." + type] = [](Bits a, Bits, Bits) { return Bits(int16_t(as<From>(a))); };
    table["cvt.u16." + type] = [](Bits a, Bits, Bits) { return Bits(uint16_t(as<From>(a))); };
    table["cvt.s32." + type] = [](Bits a, Bits, Bits) { return Bits(int32_t(as<From>(a))); };
    table["cvt.u32." + type] = [](Bits a, Bits, Bits) { return Bits(uint32_t(as<From>(a))); };
    table["cvt.s64." + type] = [](Bits a, Bits, Bits) { return Bits(int64_t(as<From>(a))); };
    table["cvt.u64." + type] = [](Bits a, Bits, Bits) { return Bits(uint64_t(as<From>(a))); };
    table["cvt.rn.f32." + type] = [](Bits a, Bits, Bits) { return bits(float(as<From>(a))); };
    table["cvt.rn.f64." + type] = [](Bits a, Bits, Bits) { return bits(double(as<From>(a))); };
}

// Cut to whole numbers; what is out of range goes to its nearer end. NaN is zero only where neither side has 64 bits.
template <class To, class From>
Bits cut(Bits a, Bits, Bits) {
    typedef std::numeric_limits<To> Limits;
    const From value = as<From>(a);
    if (std::isnan(value)) return sizeof(To) == 8 || sizeof(From) == 8 ? Bits(1) << (width<To> - 1) : 0;
    if (value <= From(Limits::min())) return Bits(Limits::min());
    if (value >= From(Limits::max())) return Bits(Limits::max());
    return Bits(To(value));
}

template <class From>
void to_integer(Table& table, const std::string& type) {
    table["cvt.rzi.s16." + type] = cut<int16_t, From>;
    table["cvt.rzi.u16." + type] = cut<uint16_t, From>;
    table["cvt.rzi.s32." + type] = cut<int32_t, From>;
    table["cvt.rzi.u32." + type] = cut<uint32_t, From>;
    table["cvt.rzi.s64." + type] = cut<int64_t, From>;
    table["cvt.rzi.u64." + type] = cut<uint64_t, From>;
}

// ---- all of them ------------------------------------------------------------------------------------------

template <class S>
void of_width(Table& table) {
    typedef std::make_unsigned_t<S> U;
    const std::string bits_of = std::to_string(width<S>);
    integers<S>(table, "s" + bits_of);
    integers<U>(table, "u" + bits_of);
    from_integer<S>(table, "s" + bits_of);
    from_integer<U>(table, "u" + bits_of);
    bit_patterns<U>(table, "b" + bits_of);
    table["shr.b" + bits_of] = table["shr.u" + bits_of];
    for (const char* kind : {"s", "u", "b"}) moves<U>(table, kind + bits_of);
}

template <class T>
void of_floats(Table& table, const std::string& type) {
    arithmetic<T>(table, type);
    comparisons<T>(table, type);
    to_integer<T>(table, type);
    moves<T>(table, type);
}

Table make() {
    Table table;
    of_width<int16_t>(table);
    of_width<int32_t>(table);
    of_width<int64_t>(table);
    from_integer<int8_t>(table, "s8");
    from_integer<uint8_t>(table, "u8");
    wide_products<int16_t>(table, "s16");
    wide_products<uint16_t>(table, "u16");
    wide_products<int32_t>(table, "s32");
    wide_products<uint32_t>(table, "u32");
    predicates(table);
    of_floats<float>(table, "f32");
    of_floats<double>(table, "f64");
    table["cvt.f64.f32"] = [](Bits a, Bits, Bits) { return bits(double(as<float>(a))); };
    table["cvt.rn.f32.f64"] = [](Bits a, Bits, Bits) { return bits(result(float(as<double>(a)))); };
    table["popc.b32"] = [](Bits a, Bits, Bits) { return Bits(__builtin_popcount(uint32_t(a))); };
    table["popc.b64"] = [](Bits a, Bits, Bits) { return Bits(__builtin_popcountll(a)); };
    table["clz.b32"] = [](Bits a, Bits, Bits) { return Bits(uint32_t(a) ? __builtin_clz(uint32_t(a)) : 32); };
    table["clz.b64"] = [](Bits a, Bits, Bits) { return Bits(a ? __builtin_clzll(a) : 64); };
    return table;
}

}  // namespace

Operation operation(const std::string& name) {
    static const Table table = make();
    const auto found = table.find(name);
    return found == table.end() ? nullptr : found->second;
}

}  // namespace emulator
