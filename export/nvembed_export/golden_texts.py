"""The (instruction, text) pairs of golden.json."""

QUESTIONS = "Instruct: Given a question, retrieve passages that answer the question\nQuery: "
DUPLICATES = "Instruct: Retrieve duplicate questions\nQuery: "

# The first four rows are the example on NVIDIA's model card, so that its published scores can be compared.
GOLDEN_TEXTS = [
    (QUESTIONS, "are judo throws allowed in wrestling?"),
    (QUESTIONS, "how to become a radiology technician in michigan?"),
    (
        "",
        "Since you're reading this, you are probably someone from a judo background or someone who is just wondering "
        "how judo techniques can be applied under wrestling rules. So without further ado, let's get to the question. "
        "Are Judo throws allowed in wrestling? Yes, judo throws are allowed in freestyle and folkstyle wrestling. You "
        "only need to be careful to follow the slam rules when executing judo throws. In wrestling, a slam is lifting "
        "and returning an opponent to the mat with unnecessary force.",
    ),
    (
        "",
        "Below are the basic steps to becoming a radiologic technologist in Michigan:Earn a high school diploma. As "
        "with most careers in health care, a high school education is the first step to finding entry-level "
        "employment. Taking classes in math and science, such as anatomy, biology, chemistry, physiology, and physics, "
        "can help prepare students for their college studies and future careers.Earn an associate degree. Entry-level "
        "radiologic positions typically require at least an Associate of Applied Science. Before enrolling in one of "
        "these degree programs, students should make sure it has been properly accredited by the Joint Review "
        "Committee on Education in Radiologic Technology (JRCERT).Get licensed or certified in the state of Michigan.",
    ),
    ("", ""),
    ("", "Grüße aus München, привет из Москвы, こんにちは東京, 안녕하세요 서울, مرحبا بالعالم 🌍👩‍🔬🏳️‍🌈"),
    (DUPLICATES, "How do I read a file line by line in Rust?"),
    ("", "wrestling"),
]
